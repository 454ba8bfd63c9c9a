"""Runs Loihi programs in lava-nc. Python 3.10; imports lava, numpy and h5py only; started by `via_lava`.

    python lava_worker.py jobs.h5 results.h5 number-of-the-parent-process

The layout of both files is described in `via_lava`, the processes in `lava_processes`.
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
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2HwCfg
from lava.proc.conv.process import Conv
from lava.proc.dense.process import DelayDense, Dense
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source
from lava.proc.monitor.process import Monitor
from lava.proc.sparse.process import DelaySparse, Sparse
from lava.utils.weightutils import SignMode
from lava_processes import FIXED_POINT_MODELS, VARIABLES, ShiftedConv, SimulationConfig, population, ports
from scipy.sparse import csr_matrix

SIGN_MODES = {"mixed": SignMode.MIXED, "excitatory": SignMode.EXCITATORY, "inhibitory": SignMode.INHIBITORY}


class Synapses:
    """One connection process, and how flat spikes enter it and its activations leave it (ports and arrays alike)."""

    def __init__(self, node):
        self.source, self.target, self.port = node.attrs["source"], node.attrs["target"], int(node.attrs["port"])
        self.enter = self.leave = lambda flat: flat
        kind, weights = node.attrs["kind"], node["weights"][:]
        options = {key: int(node.attrs[key]) for key in ("weight_exp", "num_weight_bits", "num_message_bits")}
        if kind == "conv2d":
            # Lava: (width, height, channels), a true convolution, and no exponent: positive ones go into the weights
            channels, height, width = (int(n) for n in node.attrs["input_shape"])
            self.enter = lambda flat: flat.reshape((channels, height, width)).transpose((2, 1, 0))
            self.leave = lambda image: image.transpose((2, 1, 0)).flatten()
            exponent = options["weight_exp"]
            self.process = (Conv if exponent >= 0 else ShiftedConv)(
                weight=(weights << max(exponent, 0))[:, :, ::-1, ::-1].transpose(0, 3, 2, 1).copy(),
                weight_exp=min(exponent, 0),
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


class Wires:
    """How spikes get from sources to the network and from populations to sinks: directly, all on this machine."""

    def configuration(self):
        return SimulationConfig()

    def inward(self, port):
        return port

    def outward(self, port):
        return port


class BoardWires(Wires):
    """Through the adapters of lava-loihi, on the board's embedded processors. Never tested: there was no board."""

    def __init__(self):
        from lava.utils import loihi

        if not loihi.is_installed():
            raise ImportError("this Lava runs on processors only; a board needs Intel's lava-loihi in the same Python")
        from lava.proc.embedded_io.spike import NxToPyAdapter, PyToNxAdapter  # part of lava-loihi [recalled]

        self.into, self.out_of = PyToNxAdapter, NxToPyAdapter

    def configuration(self):
        return Loihi2HwCfg()

    def inward(self, port):
        return self._through(self.into, port)

    def outward(self, port):
        return self._through(self.out_of, port)

    def _through(self, kind, port):
        adapter = kind(shape=port.shape)
        port.connect(adapter.inp)
        return adapter.out


def through_board(data, neurons, synapses, record, total, out):
    """Lava on Loihi 2 hardware, with the models that lava-loihi has for each process."""
    return through_runtime(data, neurons, synapses, record, total, out, BoardWires())


def through_runtime(data, neurons, synapses, record, total, out, wires=None):
    """Lava as its users run it: one operating-system process per Lava process. {(population, what): (total, size)}."""
    wires = wires or Wires()
    sources = {name: Source(data=spikes) for name, spikes in data.items()}
    senders = {**sources, **neurons}
    entries = {name: wires.inward(source.s_out) for name, source in sources.items()}
    for connection in synapses:
        sent = entries[connection.source] if connection.source in entries else neurons[connection.source].s_out
        connection.enter(sent).connect(connection.process.s_in)
        target = neurons[connection.target]
        connection.leave(connection.process.a_out).connect(getattr(target, ports(target)[connection.port]))
    probes = {}
    for name, process in neurons.items():
        for what in record[name]:
            if what == "spikes":
                probes[name, what] = Sink(shape=process.s_out.shape, buffer=total)
                wires.outward(process.s_out).connect(probes[name, what].a_in)
            else:
                probes[name, what] = Monitor()
                probes[name, what].probe(getattr(process, what), total)
    first = next(iter(senders.values()))
    first.run(condition=RunSteps(num_steps=1), run_cfg=wires.configuration())  # compiles and starts the processes
    try:
        began = time.perf_counter()
        if total > 1:
            first.run(condition=RunSteps(num_steps=total - 1), run_cfg=wires.configuration())
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
    recorded: dict = {(name, what): [] for name in neurons for what in record[name]}
    types = {
        (name, port): getattr(FIXED_POINT_MODELS[type(process)], port).d_type
        for name, process in neurons.items()
        for port in ports(process)
    }
    began = time.perf_counter()
    for step in range(total):
        sent = {name: spikes[:, step] for name, spikes in data.items()}
        arriving = {
            name: [np.zeros(process.s_out.shape, types[name, port]) for port in ports(process)]
            for name, process in neurons.items()
        }
        buffers = []
        for connection, model in links:
            # what the model is about to send is what it kept from the step before
            kept = model.a_buf if hasattr(model, "a_buf") else model.a_buff
            buffers.append((kept[:, 0] if hasattr(model, "delays") else kept).astype(np.int32))
            reached, port = arriving[connection.target], connection.port
            reached[port] = reached[port] + connection.leave(buffers[-1])
        for name, model in models.items():
            model.time_step = step + 1
            for port, value in zip(ports(neurons[name]), arriving[name], strict=True):
                getattr(model, port).value = value
            model.run_spk()
            sent[name] = model.s_out.value
            for what in record[name]:
                recorded[name, what].append(sent[name] if what == "spikes" else getattr(model, what).copy())
        for (connection, model), buffer in zip(links, buffers, strict=True):
            model.s_in.value = connection.enter(sent[connection.source])
            model.run_spk()
            if not np.array_equal(model.a_out.value, buffer):
                raise RuntimeError(f"{connection.source}->{connection.target}: sent something else than it kept")
    out.attrs["step_seconds"] = (time.perf_counter() - began) / total
    return {key: np.stack(series) for key, series in recorded.items()}


ENGINES = {"runtime": through_runtime, "models": stepping_models, "board": through_board}


def run(job, out):
    """Builds the network of one job, runs its samples one after the other, and writes what was recorded."""
    steps, batch, period = int(job.attrs["steps"]), int(job.attrs["batch"]), int(job.attrs["period"])
    total = period * (batch - 1) + steps
    data = {name: source_data(dataset, batch, period) for name, dataset in job["inputs"].items()}
    neurons = {name: population(job, node, steps, period) for name, node in job["populations"].items()}
    synapses = [Synapses(node) for node in job["connections"].values()]
    asked = [str(what) for what in job.attrs["record"]]
    record = {
        name: [what for what in asked if what in ("spikes", *VARIABLES[node.attrs["kind"]])]
        for name, node in job["populations"].items()
    }
    recorded = ENGINES[job.attrs["engine"]](data, neurons, synapses, record, total, out)
    for (name, what), series in recorded.items():
        whole = np.zeros((period * batch, series.shape[1]), np.int64)
        whole[:total] = series
        by_sample = whole.reshape(batch, period, -1)[:, :steps].transpose(1, 0, 2)
        out.create_dataset(f"{name}/{what}", data=by_sample.astype(np.int32))
    for name, process in neurons.items():
        out.require_group(name).attrs["model"] = type(process).__name__


def watch_parent(parent):
    """Ends this process and Lava's children when the process that started us is gone."""
    while os.getppid() == parent:
        time.sleep(0.5)
    # Python's resource tracker ignores SIGTERM, so that it can remove shared memory once the others are gone
    os.killpg(0, signal.SIGTERM)


def main(jobs_path, results_path, parent):
    threading.Thread(target=watch_parent, args=(int(parent),), daemon=True).start()
    with h5py.File(jobs_path, "r") as jobs, h5py.File(results_path, "w") as results:
        for name in jobs:
            run(jobs[name], results.create_group(name))
            print(name, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
