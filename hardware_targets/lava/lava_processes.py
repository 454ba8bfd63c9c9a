"""The Lava processes and fixed-point models that run Loihi programs. Python 3.10; imports lava and numpy only.

What Lava has is used as it is. Classes here inherit Lava's equations: `GeneralLIF` has what the LIF models of Lava have
one by one, `ShiftedConv` an exponent, `Integer...` take integer decays, and `Timed...` are told when to update and
return to rest between samples.
"""

from __future__ import annotations

import numpy as np
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.variable import Var
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.conv.models import PyConvModelFixed
from lava.proc.conv.process import Conv
from lava.proc.dense.models import PyDelayDenseModelBitAcc, PyDenseModelBitAcc
from lava.proc.dense.process import DelayDense, Dense
from lava.proc.graded.models import PyGradedReluVecModelFixed, PyGradedVecModelFixed
from lava.proc.graded.process import GradedReluVec, GradedVec
from lava.proc.lif.models import PyLifModelBitAcc, PyLifResetModelBitAcc, PyTernLifModelFixed
from lava.proc.lif.process import LIF, LIFReset, TernaryLIF
from lava.proc.prodneuron.models import PyProdNeuronModelFixed
from lava.proc.prodneuron.process import ProdNeuron
from lava.proc.resfire.models import PyRFZeroModelFixed
from lava.proc.resfire.process import RFZero
from lava.proc.rf.models import PyRFModelFixed
from lava.proc.rf.process import RF
from lava.proc.rf_iz.models import PyRF_IZModelFixed
from lava.proc.rf_iz.process import RF_IZ
from lava.proc.sdn.models import PyDeltaModelFixed, PySigmaDeltaModelFixed, PySigmaModelFixed
from lava.proc.sdn.process import ActivationMode, Delta, Sigma, SigmaDelta
from lava.proc.sparse.models import PyDelaySparseModelBitAcc, PySparseModelBitAcc
from lava.proc.sparse.process import DelaySparse, Sparse


class ShiftedConv(Conv):
    """Conv whose negative weight_exp shifts the sum, as that of Dense does; Lava's fixed-point Conv ignores it."""


class PyShiftedConvModel(PyConvModelFixed):
    implements_process = ShiftedConv  # Lava's decorator refuses subclasses of a model; the attribute says the same

    def clamp_precision(self, x):
        return super().clamp_precision(np.right_shift(x, -self.weight_exp))


class Rotation:
    """Resonators with integer decays, one per neuron; Lava's own constructors derive a single pair from floats."""

    def take(self, sine, cosine, names):
        for name, value in zip(names, (sine, cosine), strict=True):
            setattr(self, name, Var(shape=value.shape, init=value))


class IntegerRF(Rotation, RF):
    def __init__(self, *, sine, cosine, **kwargs):
        super().__init__(period=4, alpha=0, **kwargs)
        self.take(sine, cosine, ("sin_decay", "cos_decay"))


class IntegerRFIZ(Rotation, RF_IZ):
    def __init__(self, *, sine, cosine, **kwargs):
        super().__init__(period=4, alpha=0, **kwargs)
        self.take(sine, cosine, ("sin_decay", "cos_decay"))


class IntegerRFZero(Rotation, RFZero):
    def __init__(self, *, sine, cosine, **kwargs):
        super().__init__(freqs=np.ones(1), decay_tau=np.ones(1), **kwargs)
        self.take(sine, cosine, ("lst", "lct"))


class PyIntegerRF(PyRFModelFixed):
    implements_process = IntegerRF


class PyIntegerRFIZ(PyRF_IZModelFixed):
    implements_process = IntegerRFIZ


class PyIntegerRFZero(PyRFZeroModelFixed):
    implements_process = IntegerRFZero


class GeneralLIF(LIF):
    """LIF with thresholds per neuron, two of them, soft or no reset, periodic reset and a refractory period."""

    def __init__(self, *, shape, vth, vth_low, **kwargs):
        super().__init__(shape=shape, vth=0, **kwargs)
        self.vth = Var(shape=shape, init=vth)
        self.vth_low = Var(shape=shape, init=vth_low)
        self.refractory_period_end = Var(shape=shape, init=0)


class PyGeneralLifModel(PyLifModelBitAcc):
    """PyLifModelBitAcc, whose equations of u and v are inherited, with what the other LIF models of Lava add."""

    implements_process = GeneralLIF

    vth: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=17)
    vth_low: np.ndarray = LavaPyType(np.ndarray, np.int32, precision=17)
    refractory_period_end: np.ndarray = LavaPyType(np.ndarray, int)

    def subthr_dynamics(self, activation_in):
        interval = self.proc_params["reset_interval"]
        if interval and self.time_step % interval == self.proc_params["reset_offset"] % interval:
            self.u *= 0
            self.v *= 0
        before = self.v.copy()
        super().subthr_dynamics(activation_in)
        refractory = self.refractory_period_end >= self.time_step
        self.v[refractory] = before[refractory]

    def spiking_activation(self):
        if self.proc_params["reset"] == "none":
            return np.zeros(self.v.shape, bool)
        if not self.proc_params["ternary"]:
            return super().spiking_activation()
        return (-1) * (self.v < np.left_shift(self.vth_low, self.vth_shift)) + (self.v > self.effective_vth)

    def reset_voltage(self, spike_vector):
        spiked = spike_vector != 0
        if self.proc_params["reset"] == "subtract":
            passed = np.where(spike_vector > 0, self.effective_vth, np.left_shift(self.vth_low, self.vth_shift))
            self.v[spiked] -= passed[spiked]
        else:
            self.v[spiked] = 0
        if self.proc_params["refractory"]:
            self.refractory_period_end[spiked] = self.time_step + self.proc_params["refractory"]


FIXED_POINT_MODELS = {
    LIF: PyLifModelBitAcc,
    LIFReset: PyLifResetModelBitAcc,
    TernaryLIF: PyTernLifModelFixed,
    GeneralLIF: PyGeneralLifModel,
    Sigma: PySigmaModelFixed,
    Delta: PyDeltaModelFixed,
    SigmaDelta: PySigmaDeltaModelFixed,
    GradedVec: PyGradedVecModelFixed,
    GradedReluVec: PyGradedReluVecModelFixed,
    ProdNeuron: PyProdNeuronModelFixed,
    IntegerRF: PyIntegerRF,
    IntegerRFIZ: PyIntegerRFIZ,
    IntegerRFZero: PyIntegerRFZero,
    Conv: PyConvModelFixed,
    ShiftedConv: PyShiftedConvModel,
    Dense: PyDenseModelBitAcc,
    DelayDense: PyDelayDenseModelBitAcc,
    Sparse: PySparseModelBitAcc,
    DelaySparse: PyDelaySparseModelBitAcc,
}
PORTS = {
    ProdNeuron: ("a_in1", "a_in2"),
    IntegerRF: ("a_real_in", "a_imag_in"),
    IntegerRFIZ: ("a_real_in", "a_imag_in"),
    IntegerRFZero: ("u_in", "v_in"),
}
TIMED = {}


class Timed(PyLoihiProcessModel):
    """A model that works on steps start..active - 1 of every `period` and is at rest when one begins.

    Within a period its clock starts anew; outside the window it takes what arrives and sends nothing.
    """

    time_step: int

    def run_spk(self):
        timing, clock = self.timing, self.time_step
        phase = (clock - 1) % timing["period"]
        if phase == 0:
            for name, value in timing["rest"].items():
                getattr(self, name)[:] = value
        if timing["start"] <= phase < timing["active"]:
            self.time_step = phase + 1
            super().run_spk()
            self.time_step = clock
            return
        for port in PORTS.get(timing["process"], ("a_in",)):
            getattr(self, port).recv()
        self.s_out.send(np.zeros(timing["shape"], np.int32))

    @property
    def timing(self):
        return self.proc_params["timing"]


for _process, _model in list(FIXED_POINT_MODELS.items())[:13]:
    # module-level names, because Lava sends the classes to other processes
    _timed = type("Timed" + _process.__name__, (_process,), {"__module__": __name__})
    TIMED[_process] = _timed
    FIXED_POINT_MODELS[_timed] = type(
        "Timed" + _model.__name__, (Timed, _model), {"__module__": __name__, "implements_process": _timed}
    )
    if _process in PORTS:
        PORTS[_timed] = PORTS[_process]
    for _class in (_timed, FIXED_POINT_MODELS[_timed]):
        globals()[_class.__name__] = _class


class SimulationConfig(Loihi2SimCfg):
    """'fixed_pt' models; ours for processes of ours, wherever Lava looks for models."""

    def __init__(self):
        ours = {process: model for process, model in FIXED_POINT_MODELS.items() if process.__module__ == __name__}
        super().__init__(select_tag="fixed_pt", exception_proc_model_map=ours)


VARIABLES = {
    "Population": ("u", "v", "refractory_period_end"),
    "Sigma": ("sigma",),
    "Delta": ("act", "residue", "error"),
    "SigmaDelta": ("sigma", "act", "residue", "error"),
    "GradedVector": (),
    "Product": (),
    "Resonator": ("real", "imag"),
    "PhaseVector": ("u", "v"),
}


def population(job, node, steps, period):
    """Lava's own process where it can express the population, one that inherits its model otherwise."""
    kind, arguments = PROCESSES[node.attrs["kind"]](node)
    timed = job.attrs["batch"] > 1 or node.attrs["start"] > 0
    process = (TIMED[kind] if timed else kind)(shape=(int(node.attrs["size"]),), **arguments)
    if timed:
        rest = {name: getattr(process, name).init for name in VARIABLES[node.attrs["kind"]] if hasattr(process, name)}
        process.proc_params["timing"] = {
            "period": period, "active": steps, "start": int(node.attrs["start"]), "rest": rest,
            "shape": (int(node.attrs["size"]),), "process": kind,
        }  # fmt: skip
    return process


def lif(node):
    vth, low = node["vth"][:], node["vth_low"][:] if "vth_low" in node else None
    names = ("reset", "refractory", "reset_interval", "reset_offset")
    reset, refractory, interval, offset = (node.attrs[name] for name in names)
    common = {
        "u": node["u0"][:],
        "v": node["v0"][:],
        "du": int(node.attrs["du"]),
        "dv": int(node.attrs["dv"]),
        "bias_mant": node["bias_mant"][:],
        "bias_exp": node["bias_exp"][:],
    }
    alike = np.ptp(vth) == 0 and (low is None or np.ptp(low) == 0)
    if reset == "zero" and not refractory and alike and not (interval and low is not None):
        if low is not None:
            return TernaryLIF, {"vth_hi": int(vth[0]), "vth_lo": int(low[0]), **common}
        if interval:
            return LIFReset, {
                "vth": int(vth[0]), "reset_interval": int(interval), "reset_offset": int(offset), **common
            }  # fmt: skip
        return LIF, {"vth": int(vth[0]), **common}
    own = {"reset": reset, "refractory": int(refractory), "ternary": low is not None}
    own |= {"reset_interval": int(interval), "reset_offset": int(offset)}
    return GeneralLIF, {"vth": vth, "vth_low": vth if low is None else low, **own, **common}


def change(node):
    names = ("vth", "spike_exp", "state_exp")
    return {**{name: int(node.attrs[name]) for name in names}, "cum_error": bool(node.attrs["cum_error"])}


def sigma_delta(node):
    mode = {"relu": ActivationMode.RELU, "unit": ActivationMode.UNIT}[node.attrs["activation"]]
    return SigmaDelta, {"bias": node["bias"][:], "act_mode": mode, **change(node)}


def resonator(node):
    kind = IntegerRF if node.attrs["fires"] == "phase" else IntegerRFIZ
    names = ("decay_bits", "vth", "state_exp")
    return kind, {"sine": node["sine"][:], "cosine": node["cosine"][:], **{n: int(node.attrs[n]) for n in names}}


PROCESSES = {
    "Population": lif,
    "Sigma": lambda node: (Sigma, {}),
    "Delta": lambda node: (Delta, change(node)),
    "SigmaDelta": sigma_delta,
    "GradedVector": lambda node: (
        GradedReluVec if node.attrs["rectify"] else GradedVec,
        {"vth": int(node.attrs["vth"])},
    ),
    "Product": lambda node: (ProdNeuron, {"vth": int(node.attrs["vth"]), "exp": int(node.attrs["exp"])}),
    "Resonator": resonator,
    "PhaseVector": lambda node: (
        IntegerRFZero,
        {"sine": node["sine"][:], "cosine": node["cosine"][:], "uth": int(node.attrs["vth"])},
    ),
}


def ports(process):
    return PORTS.get(type(process), ("a_in",))
