"""Runs Loihi programs in lava-nc. Python 3.10; imports lava, numpy and h5py only; started by `via_lava`.

    python lava_worker.py jobs.h5 results.h5

The layout of both files is described in `via_lava`. Populations that Lava knows (hard reset, one threshold, no start,
one sample) are Lava's own LIF. The others are `TimedLIF`: the same model, whose equations are inherited, told when to
update, when to return to rest between samples, and how to reset.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import h5py
import numpy as np
from lava.magma.compiler.builders.py_builder import PyProcessBuilder
from lava.magma.compiler.utils import VarInitializer
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.variable import Var
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.conv.models import PyConvModelFixed
from lava.proc.conv.process import Conv
from lava.proc.dense.models import PyDelayDenseModelBitAcc, PyDenseModelBitAcc
from lava.proc.dense.process import DelayDense, Dense
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source
from lava.proc.lif.models import PyLifModelBitAcc
from lava.proc.lif.process import LIF
from lava.proc.monitor.process import Monitor
from lava.proc.sparse.models import PyDelaySparseModelBitAcc, PySparseModelBitAcc
from lava.proc.sparse.process import DelaySparse, Sparse
from lava.utils.weightutils import SignMode
from scipy.sparse import csr_matrix

SIGN_MODES = {"mixed": SignMode.MIXED, "excitatory": SignMode.EXCITATORY, "inhibitory": SignMode.INHIBITORY}


class TimedLIF(LIF):
    """LIF with one threshold per neuron that updates on steps start..active - 1 of every `period`."""

    def __init__(self, *, shape, vth, **kwargs):
        super().__init__(shape=shape, vth=0, **kwargs)
        self.vth = Var(shape=shape, init=vth)


class PyTimedLifModel(PyLifModelBitAcc):
    """PyLifModelBitAcc, silent outside its window, at rest at the start of every period, with Loihi 2's resets."""

    implements_process = TimedLIF  # Lava's decorator refuses subclasses of a model; the attribute says the same

    vth: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=17)

    def run_spk(self):
        timing = self.proc_params
        phase = (self.time_step - 1) % timing["period"]
        if phase == 0:
            self.u[:] = timing["rest_u"]
            self.v[:] = timing["rest_v"]
        if timing["start"] <= phase < timing["active"]:
            super().run_spk()
        else:
            self.a_in.recv()
            self.s_out.send(np.zeros(self.v.shape, np.int32))

    def spiking_activation(self):
        if self.proc_params["reset"] == "none":
            return np.zeros(self.v.shape, bool)
        return super().spiking_activation()

    def reset_voltage(self, spike_vector):
        if self.proc_params["reset"] == "subtract":
            self.v[spike_vector] -= self.effective_vth[spike_vector]
        else:
            super().reset_voltage(spike_vector)


FIXED_POINT_MODELS = {
    LIF: PyLifModelBitAcc,
    TimedLIF: PyTimedLifModel,
    Conv: PyConvModelFixed,
    Dense: PyDenseModelBitAcc,
    DelayDense: PyDelayDenseModelBitAcc,
    Sparse: PySparseModelBitAcc,
    DelaySparse: PyDelaySparseModelBitAcc,
}


class SimulationConfig(Loihi2SimCfg):
    """'fixed_pt' models; ours for TimedLIF, wherever Lava looks for models."""

    def __init__(self):
        super().__init__(select_tag="fixed_pt", exception_proc_model_map={TimedLIF: PyTimedLifModel})


def population(job, node, steps, period):
    """Lava's LIF where it can express the population, TimedLIF otherwise."""
    size, reset, start = int(node.attrs["size"]), node.attrs["reset"], int(node.attrs["start"])
    vth, u0, v0 = node["vth"][:], node["u0"][:], node["v0"][:]
    common = {
        "shape": (size,),
        "u": u0,
        "v": v0,
        "du": int(node.attrs["du"]),
        "dv": int(node.attrs["dv"]),
        "bias_mant": node["bias_mant"][:],
        "bias_exp": node["bias_exp"][:],
    }
    if job.attrs["batch"] == 1 and reset == "zero" and start == 0 and np.ptp(vth) == 0:
        return LIF(vth=int(vth[0]), **common)
    return TimedLIF(vth=vth, period=period, active=steps, start=start, reset=reset, rest_u=u0, rest_v=v0, **common)


class Synapses:
    """One connection process, and how flat spikes enter it and its activations leave it (ports and arrays alike)."""

    def __init__(self, node):
        self.source, self.target = node.attrs["source"], node.attrs["target"]
        self.enter = self.leave = lambda flat: flat
        kind, weights = node.attrs["kind"], node["weights"][:]
        options = {key: int(node.attrs[key]) for key in ("weight_exp", "num_weight_bits", "num_message_bits")}
        if kind == "conv2d":
            # Lava: (width, height, channels), a true convolution, and no exponent
            channels, height, width = (int(n) for n in node.attrs["input_shape"])
            self.enter = lambda flat: flat.reshape((channels, height, width)).transpose((2, 1, 0))
            self.leave = lambda image: image.transpose((2, 1, 0)).flatten()
            self.process = Conv(
                weight=(weights << options["weight_exp"])[:, :, ::-1, ::-1].transpose(0, 3, 2, 1).copy(),
                input_shape=(width, height, channels),
                num_message_bits=options["num_message_bits"],
                groups=int(node.attrs["groups"]),
                **{key: tuple(int(n) for n in node.attrs[key][::-1]) for key in ("stride", "padding", "dilation")},
            )
            return
        if node.attrs["sign_mode"]:
            options["sign_mode"] = SIGN_MODES[node.attrs["sign_mode"]]
        if "delays" in node:
            options["delays"] = node["delays"][:].astype(int)
        if kind == "sparse":
            places, shape = (node["rows"][:], node["columns"][:]), tuple(int(n) for n in node.attrs["shape"])
            weights = csr_matrix((weights, places), shape=shape)
            if "delays" in options:
                options["delays"] = csr_matrix((options["delays"], places), shape=shape)
        dense, delayed = (Sparse, DelaySparse) if kind == "sparse" else (Dense, DelayDense)
        self.process = (delayed if "delays" in options else dense)(weights=weights, **options)


def source_data(dataset, batch, period):
    """Input spikes (size, batch * period): every sample followed by silence."""
    data = np.zeros((dataset.shape[2], batch, period), np.int32)
    data[:, :, : len(dataset)] = dataset[:].transpose(2, 1, 0)
    return data.reshape(len(data), -1)


def through_runtime(data, neurons, synapses, record, total, out):
    """Lava as its users run it: one operating-system process per Lava process. {(population, what): (total, size)}."""
    sources = {name: Source(data=spikes) for name, spikes in data.items()}
    senders = {**sources, **neurons}
    for connection in synapses:
        connection.enter(senders[connection.source].s_out).connect(connection.process.s_in)
        connection.leave(connection.process.a_out).connect(neurons[connection.target].a_in)
    probes = {}
    for name, process in neurons.items():
        for what in record:
            if what == "spikes":
                probes[name, what] = Sink(shape=process.s_out.shape, buffer=total)
                process.s_out.connect(probes[name, what].a_in)
            else:
                probes[name, what] = Monitor()
                probes[name, what].probe(getattr(process, what), total)
    first = next(iter(senders.values()))
    first.run(condition=RunSteps(num_steps=1), run_cfg=SimulationConfig())  # compiles and starts the processes
    try:
        began = time.perf_counter()
        if total > 1:
            first.run(condition=RunSteps(num_steps=total - 1), run_cfg=SimulationConfig())
        out.attrs["step_seconds"] = (time.perf_counter() - began) / max(1, total - 1)
        return {
            (name, what): probe.data.get().T if what == "spikes" else probe.get_data()[neurons[name].name][what]
            for (name, what), probe in probes.items()
        }
    finally:
        first.stop()


class Line:
    """Stands in for a port of a model that is stepped by hand; values are 32-bit words as on Lava's channels."""

    def __init__(self):
        self.value = None

    def send(self, value):
        self.value = np.asarray(value).astype(np.int32)

    def recv(self):
        return self.value


def process_model(process):
    """The process's fixed_pt model with its variables, built by Lava's own builder, its ports replaced by lines."""
    kind = FIXED_POINT_MODELS[type(process)]
    builder = PyProcessBuilder(kind, 0, process.proc_params)
    builder.set_variables([VarInitializer(v.name, v.shape, v.init, number) for number, v in enumerate(process.vars)])
    model = builder.build()
    for port in (*process.in_ports, *process.out_ports):
        setattr(model, port.name, Line())
    return model


def stepping_models(data, neurons, synapses, record, total, out):
    """Lava's process models, stepped by hand in this process: the same arithmetic without the messages between
    processes, a hundred times faster for small networks."""
    models = {name: process_model(process) for name, process in neurons.items()}
    links = [(connection, process_model(connection.process)) for connection in synapses]
    recorded: dict = {(name, what): [] for name in neurons for what in record}
    began = time.perf_counter()
    for step in range(total):
        sent = {name: spikes[:, step] for name, spikes in data.items()}
        arriving = {name: np.zeros(process.a_in.shape, np.int16) for name, process in neurons.items()}
        buffers = []
        for connection, model in links:
            # what the model is about to send is what it kept from the step before
            kept = model.a_buf if hasattr(model, "a_buf") else model.a_buff
            buffers.append((kept[:, 0] if hasattr(model, "delays") else kept).astype(np.int32))
            arriving[connection.target] = arriving[connection.target] + connection.leave(buffers[-1])
        for name, model in models.items():
            model.time_step = step + 1
            model.a_in.value = arriving[name]
            model.run_spk()
            sent[name] = model.s_out.value
            for what in record:
                recorded[name, what].append(sent[name] if what == "spikes" else getattr(model, what).copy())
        for (connection, model), buffer in zip(links, buffers, strict=True):
            model.s_in.value = connection.enter(sent[connection.source])
            model.run_spk()
            if not np.array_equal(model.a_out.value, buffer):
                raise RuntimeError(f"{connection.source}->{connection.target}: sent something else than it kept")
    out.attrs["step_seconds"] = (time.perf_counter() - began) / total
    return {key: np.stack(series) for key, series in recorded.items()}


ENGINES = {"runtime": through_runtime, "models": stepping_models}


def run(job, out):
    """Builds the network of one job, runs its samples one after the other, and writes what was recorded."""
    steps, batch, period = int(job.attrs["steps"]), int(job.attrs["batch"]), int(job.attrs["period"])
    total = period * (batch - 1) + steps
    data = {name: source_data(dataset, batch, period) for name, dataset in job["inputs"].items()}
    neurons = {name: population(job, node, steps, period) for name, node in job["populations"].items()}
    synapses = [Synapses(node) for node in job["connections"].values()]
    recorded = ENGINES[job.attrs["engine"]](data, neurons, synapses, [str(w) for w in job.attrs["record"]], total, out)
    for (name, what), series in recorded.items():
        whole = np.zeros((period * batch, series.shape[1]), np.int64)
        whole[:total] = series
        by_sample = whole.reshape(batch, period, -1)[:, :steps].transpose(1, 0, 2)
        out.create_dataset(f"{name}/{what}", data=by_sample.astype(np.uint8 if what == "spikes" else np.int32))
    for name, process in neurons.items():
        out.require_group(name).attrs["model"] = type(process).__name__


def watch_parent(parent):
    """Ends this process and Lava's children when the process that started us is gone."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.killpg(os.getpgid(0), signal.SIGKILL)


def main(jobs_path, results_path):
    threading.Thread(target=watch_parent, args=(os.getppid(),), daemon=True).start()
    with h5py.File(jobs_path, "r") as jobs, h5py.File(results_path, "w") as results:
        for name in jobs:
            run(jobs[name], results.create_group(name))
            print(name, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
