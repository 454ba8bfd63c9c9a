"""A training that is killed, interrupted or stopped anywhere goes on to the same bytes as one that never was."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from neuro.encode import Rate
from neuro.errors import FileError, ParameterError
from neuro.training import Encoded, History, RateCrossEntropy, fit

TRAINING = '''
from torch import Tensor, nn
import torch

from neuro.encode import Rate
from neuro.surrogate import ArcTan, spike
from neuro.training import Encoded, RateCrossEntropy, fit


class Spiking(nn.Module):
    """Two layers of leaky neurons, the first with recurrent weights and dropout, step by step."""

    def __init__(self):
        super().__init__()
        self.inward, self.around, self.outward = nn.Linear(6, 20), nn.Linear(20, 20), nn.Linear(20, 3)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        v = z = x.new_zeros(x.shape[1], 20)
        out = x.new_zeros(x.shape[1], 3)
        fired = []
        for now in x:
            v = 0.9 * v * (1 - z.detach()) + self.inward(now) + 0.1 * self.around(z)
            z = self.dropout(spike(v - 1, ArcTan()))
            out = 0.9 * out + self.outward(z)
            fired.append(spike(out - 1, ArcTan()))
        return torch.stack(fired)


class Shaken:
    """Something after every step that remembers: weights move by what it has counted."""

    def __init__(self):
        self.count = torch.zeros(())

    def __call__(self, module):
        self.count += 1
        with torch.no_grad():
            module.inward.bias.add_(1e-4 * self.count)

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"].clone()


def noise(x, generator):
    return (x + 0.1 * torch.rand(x.shape, generator=generator)).clamp(0, 1)


def samples(count, seed):
    y = torch.arange(count) % 3
    x = 0.6 * torch.rand(count, 6, generator=torch.Generator().manual_seed(seed))
    x[torch.arange(count), 2 * y] += 0.4
    return x, y


def train(resume=None, after_step=None, **more):
    torch.manual_seed(1)
    module = Spiking()
    history = fit(
        module, samples(90, 0), validation=samples(30, 1), epochs=10, batch_size=16, learning_rate=1e-2, seed=5,
        encode=Encoded(Rate(), 6), loss=RateCrossEntropy(), augment=noise, after_step=after_step or Shaken(),
        resume=resume, checkpoint_every=2 if resume else None, threads=1, **more,
    )
    return module, history
'''

KILLING = '''
import json, os, random, signal, sys, time
import lightning_fabric
from training import train, torch


def child(work):
    """Start `work` in a process of its own, from here on: nothing has to be imported again."""
    number = os.fork()
    if number == 0:
        work()
        os._exit(0)
    return number


def unbroken():
    module, history = train()
    torch.save((module.state_dict(), history), "unbroken.pt")


def broken():
    module, history = train(resume="training.safetensors")
    torch.save((module.state_dict(), history), "broken.pt")


torch.set_num_threads(1)
began = time.monotonic()
assert os.waitpid(child(unbroken), 0)[1] == 0
whole = time.monotonic() - began
moments, kills = random.Random(int(sys.argv[1])), 0
while True:
    number = child(broken)
    if kills < 5:
        time.sleep(moments.uniform(0.1, 0.6) * whole)
        os.kill(number, signal.SIGKILL)
    ended = os.waitpid(number, 0)[1]
    if ended == 0:
        break
    assert os.WTERMSIG(ended) == signal.SIGKILL
    kills += 1
print(json.dumps(kills))
'''


def state_bytes(module: nn.Module) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in module.state_dict().values())


@pytest.fixture(scope="module")
def training() -> ModuleType:
    """The module above, for this process."""
    module = ModuleType("training")
    exec(TRAINING, module.__dict__)
    return module


@pytest.fixture(scope="module")
def whole(training) -> tuple[bytes, History]:
    """What comes of the training where nothing interrupts it."""
    module, history = training.train()
    return state_bytes(module), history


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_random_moments_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "training.py").write_text(TRAINING)
    (tmp_path / "killing.py").write_text(KILLING)
    done = subprocess.run(
        [sys.executable, "killing.py", str(random.SystemRandom().randrange(10**6))],
        cwd=tmp_path, capture_output=True, text=True, timeout=280, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) >= 1
    one, other = (torch.load(tmp_path / f"{name}.pt", weights_only=False) for name in ("unbroken", "broken"))
    assert other[1] == one[1]
    assert len(one[1].epochs) == 10
    for name, tensor in one[0].items():
        assert torch.equal(other[0][name], tensor), name


class Broken(Exception):
    pass


@pytest.mark.parametrize("updates", [1, 6, 35, 60])
def test_it_goes_on_from_anywhere(training, whole, tmp_path: Path, updates: int) -> None:
    """Six updates an epoch; what was not kept is done again."""

    class Breaks(training.Shaken):
        def __call__(self, module: nn.Module) -> None:
            super().__call__(module)
            if int(self.count) == updates:
                raise Broken

    Breaks.__qualname__ = "Shaken"
    path = tmp_path / "training.safetensors"
    with pytest.raises(Broken):
        training.train(resume=path, after_step=Breaks())
    module, history = training.train(resume=path)
    assert (state_bytes(module), history) == whole


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_stops_after_the_present_update_and_keeps_it(training, whole, tmp_path: Path, number, error) -> None:
    path = tmp_path / "training.safetensors"
    before = {known: signal.getsignal(known) for known in (signal.SIGINT, signal.SIGTERM)}

    class Asks(training.Shaken):
        def __call__(self, module: nn.Module) -> None:
            if int(self.count) == 20:
                os.kill(os.getpid(), number)
            super().__call__(module)

    Asks.__qualname__ = "Shaken"
    with pytest.raises(error) as caught:
        training.train(resume=path, after_step=Asks())
    if error is SystemExit:
        assert caught.value.code == 128 + number
    with safe_open(path, "pt") as file:
        record = json.loads(file.metadata()["record"])
        assert float(file.get_tensor("after_step|count")) == 21
    assert (len(record["epochs"]), record["steps"]) == (3, 3)
    assert {known: signal.getsignal(known) for known in before} == before
    module, history = training.train(resume=path)
    assert (state_bytes(module), history) == whole


def test_without_a_file_to_keep_it_signals_act_at_once(training, request: pytest.FixtureRequest) -> None:
    # programs that were started in the background ignore SIGINT
    request.addfinalizer(partial(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT)))
    signal.signal(signal.SIGINT, signal.default_int_handler)

    class Asks(training.Shaken):
        def __call__(self, module: nn.Module) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            signal.sigtimedwait([], 0)  # the handler runs before the next line of Python
            raise AssertionError("the signal was kept back")

    with pytest.raises(KeyboardInterrupt):
        training.train(after_step=Asks())


def test_early_stopping_is_found_again(training, tmp_path: Path) -> None:
    """A learning rate of almost zero changes no answer, so the first epoch stays the best or close to it."""

    def stopped(resume: Path | None) -> tuple[nn.Module, History]:
        torch.manual_seed(1)
        module = training.Spiking()
        return module, fit(
            module, training.samples(90, 0), validation=training.samples(30, 1), epochs=40, learning_rate=1e-7,
            encode=Encoded(Rate(), 6), loss=RateCrossEntropy(), patience=3, resume=resume, threads=1,
        )  # fmt: skip

    module, history = stopped(None)
    assert len(history.epochs) == history.kept + 3 < 40
    scores = [(epoch.validation_accuracy, -epoch.validation_loss) for epoch in history.epochs]
    assert scores[history.kept - 1] == max(scores)
    path = tmp_path / "training.safetensors"
    for _ in range(2):
        other, again = stopped(path)
        assert again == history
        assert state_bytes(other) == state_bytes(module)


def test_other_files_and_trainings_are_refused(training, tmp_path: Path) -> None:
    x, y = training.samples(30, 0)
    path = tmp_path / "training.safetensors"

    def dense(x: Tensor = x, **settings: object) -> None:
        torch.manual_seed(0)
        fit(nn.Linear(6, 3), (x, y), **{"epochs": 1, "resume": path, **settings})  # type: ignore[arg-type]

    with pytest.raises(FileError, match="kept as"):
        dense(resume=tmp_path / "training.pt")
    with pytest.raises(ParameterError, match="checkpoint_every needs resume"):
        dense(resume=None, checkpoint_every=3)
    with pytest.raises(ParameterError, match="patience needs validation"):
        dense(patience=3)
    dense()
    for changed in ({"epochs": 2}, {"seed": 1}, {"clip": 1.0}, {"x": x.flip(0)}, {"loss": RateCrossEntropy()}):
        with pytest.raises(FileError, match="another network, data or settings"):
            dense(**changed)  # type: ignore[arg-type]
    data = path.read_bytes()
    for damaged in (data[:-1], data[: len(data) // 2], b"", b"\xff" * 100):
        path.write_bytes(damaged)
        with pytest.raises(FileError):
            dense()
        assert path.read_bytes() == damaged
