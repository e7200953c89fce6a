"""A mask held in Lightning's and Hugging Face's trainers: a short real run of each."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import lth
from lth import models
from lth.errors import UsageError
from lth.tickets.callbacks import part_of

# These libraries warn of themselves in ways that are not ours to mend.
pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore")]


def lacks(*names: str) -> pytest.MarkDecorator:
    missing = [name for name in names if not find_spec(name)]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def random_mask(model: nn.Module) -> dict[str, Tensor]:
    drawn = torch.Generator().manual_seed(1)
    return {name: torch.rand(p.shape, generator=drawn) < 0.4 for name, p in models.counted(model).items()}


def revived(model: nn.Module, mask: dict[str, Tensor]) -> int:
    return sum(int(model.get_parameter(name)[~layer].count_nonzero()) for name, layer in mask.items())


def examples(count: int = 48) -> tuple[Tensor, Tensor]:
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(0))
    return x, x[:, :3].argmax(1)


@lacks("lightning")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_lightnings_trainer(tmp_path: Path, precision: Any) -> None:
    import lightning

    class Mine(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(6, 20), nn.BatchNorm1d(20), nn.ReLU(), nn.Linear(20, 3))

        def training_step(self, batch: Any, index: int) -> Tensor:
            return cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9)]

    class Look(lightning.Callback):
        steps = 0

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            assert revived(pl_module.net, mask) == 0
            self.steps += 1

    model, look = Mine(), Look()
    mask = random_mask(model.net)
    before = models.tensors(model.net)
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    trainer = lightning.Trainer(
        max_epochs=3, accelerator="cpu", devices=1, precision=precision, accumulate_grad_batches=2,
        gradient_clip_val=0.5, default_root_dir=tmp_path, callbacks=[lth.lightning_callback(mask, module="net"), look],
        **quiet,
    )  # fmt: skip
    trainer.fit(model, DataLoader(TensorDataset(*examples()), 8))
    assert look.steps == 18 and revived(model.net, mask) == 0
    trained = models.tensors(model.net)
    assert all(not torch.equal(trained[name][layer], before[name][layer]) for name, layer in mask.items())
    loss = cross_entropy(model.net(examples()[0]), examples()[1])
    loss.backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    assert revived(model.net, mask) > 0  # let go at the end


@lacks("lightning")
def test_lightning_lets_go_where_training_fails(tmp_path: Path) -> None:
    import lightning

    class Failing(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(6, 3)

        def training_step(self, batch: Any, index: int) -> Tensor:
            raise ZeroDivisionError

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1)

    model = Failing()
    mask = {"net.weight": torch.zeros(3, 6).bool()}
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, default_root_dir=tmp_path, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, callbacks=[lth.lightning_callback(mask)],
    )  # fmt: skip
    with pytest.raises(ZeroDivisionError):
        trainer.fit(model, DataLoader(TensorDataset(*examples()), 8))
    assert not model.net.weight.any()
    model.net(examples()[0]).sum().backward()
    assert model.net.weight.grad is not None and model.net.weight.grad.any()


@lacks("transformers", "accelerate")
def test_hugging_faces_trainer(tmp_path: Path) -> None:
    """A tiny GPT-2, whose head is tied to its embedding, and whose layers are no nn.Linear."""
    import transformers

    config = transformers.GPT2Config(
        vocab_size=30, n_positions=8, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)
    mask = random_mask(model)
    assert "transformer.wte.weight" in mask and "lm_head.weight" not in mask and len(mask) == 2 + 4 * 2
    before = models.tensors(model)
    steps: list[int] = []

    class Look(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:
            assert revived(model, mask) == 0
            assert model.lm_head.weight is model.transformer.wte.weight
            steps.append(state.global_step)

    drawn = torch.randint(0, 30, (32, 8), generator=torch.Generator().manual_seed(2))
    data = [{"input_ids": row, "labels": row} for row in drawn]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=2, per_device_train_batch_size=4, gradient_accumulation_steps=2,
        learning_rate=0.01, weight_decay=0.1, bf16=True, use_cpu=True, report_to=[], save_strategy="no",
        logging_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=data, callbacks=[lth.hf_callback(mask), Look()]  # type: ignore[arg-type]
    )  # fmt: skip
    trainer.train()
    assert steps == list(range(1, 9)) and revived(model, mask) == 0
    trained = models.tensors(model)
    assert all(not torch.equal(trained[name][layer], before[name][layer]) for name, layer in mask.items())


@lacks("transformers", "accelerate")
def test_lth_imp_around_hugging_faces_trainer_needs_no_callback(tmp_path: Path) -> None:
    import transformers

    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=10, n_positions=4, n_embd=8, n_layer=1, n_head=1)
    )
    first = models.tensors(model)
    data = [{"input_ids": torch.arange(4) + n, "labels": torch.arange(4) + n} for n in range(6)]

    def train(model: nn.Module) -> None:
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path), max_steps=3, learning_rate=0.01, use_cpu=True, report_to=[], save_strategy="no",
            disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        transformers.Trainer(model=model, args=arguments, train_dataset=data).train()  # type: ignore[arg-type]

    tickets = lth.imp(model, train, rate=0.5, levels=2, rates={"*wte*": 0})
    assert revived(model, tickets[2].mask) == 0 and tickets[2].mask["transformer.wte.weight"].all()
    for name, layer in tickets[2].mask.items():
        assert torch.equal(tickets[2].start[name], first[name] * layer)


def test_without_the_libraries_it_is_said_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr("lth.tickets.callbacks.import_module", absent)
    with pytest.raises(UsageError, match=r"lightning is not installed: pip install 'lth\[lightning\]'"):
        lth.lightning_callback({})
    with pytest.raises(UsageError, match=r"transformers is not installed: pip install 'lth\[hf\]'"):
        lth.hf_callback({})


# ------------------------------------------------------------------------------- averages, checkpoints, interruptions


def lightning_model(seed: int) -> Any:
    import lightning

    class Mine(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.net = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3))

        def training_step(self, batch: Any, index: int) -> Tensor:
            return cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch: Any, index: int) -> None:
            if not self.trainer.sanity_checking and self.mask is not None:
                assert revived(self.net, self.mask) == 0

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)

    model = Mine()
    model.mask = None
    return model


def lightning_trainer(folder: Path, epochs: int, callbacks: list[Any]) -> Any:
    import lightning

    return lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", devices=1, default_root_dir=folder, callbacks=callbacks, logger=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=1,
    )  # fmt: skip


def home_made_average() -> Any:
    """Averages in a dict, put into the model in place for each validation and at the end."""
    import lightning

    class Average(lightning.Callback):
        def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
            self.average = {name: p.detach().clone() for name, p in pl_module.named_parameters()}

        def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
            self.kept = {name: p.detach().clone() for name, p in pl_module.named_parameters()}
            self.put(pl_module, self.average)

        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            self.put(pl_module, self.kept)

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            self.put(pl_module, self.average)

        def put(self, model: nn.Module, values: dict[str, Tensor]) -> None:
            for name, parameter in model.named_parameters():
                parameter.data.copy_(values[name])

    return Average()


@lacks("lightning")
@pytest.mark.parametrize("first", ["mask", "average"])
@pytest.mark.parametrize("kind", ["EMAWeightAveraging", "WeightAveraging", "StochasticWeightAveraging", "home-made"])
def test_averages_that_lightning_keeps_are_masked_in_any_order_and_after_a_dense_checkpoint(
    tmp_path: Path, kind: str, first: str
) -> None:
    from lightning.pytorch import callbacks

    def average() -> Any:
        if kind == "home-made":
            return home_made_average()
        made = getattr(callbacks, kind, None)
        if made is None:
            pytest.skip(f"this version of Lightning has no {kind}")
        return made(swa_lrs=0.1, swa_epoch_start=1) if kind.startswith("Stochastic") else made()

    loader = lambda: DataLoader(TensorDataset(*examples()), 8)
    keep = lambda name: callbacks.ModelCheckpoint(tmp_path, filename=name, save_top_k=-1)
    dense = lightning_model(1)
    lightning_trainer(tmp_path, 2, [average(), keep("dense")]).fit(dense, loader(), loader())
    model = lightning_model(2)
    mask = model.mask = random_mask(model.net)
    hold, other = lth.lightning_callback(mask, module="net"), average()
    order = [hold, other] if first == "mask" else [other, hold]
    trainer = lightning_trainer(tmp_path, 4, [*order, keep("sparse")])
    trainer.fit(model, loader(), loader(), ckpt_path=tmp_path / "dense.ckpt")
    assert trainer.global_step == 24 and revived(model.net, mask) == 0
    saved = torch.load(tmp_path / "sparse.ckpt", weights_only=False)["state_dict"]
    assert not any(saved[f"net.{name}"][~layer].any() for name, layer in mask.items())


class Loss(nn.Module):
    """A network for Hugging Face's trainer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(6, 3)

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        outputs = self.net(x)
        return {"loss": cross_entropy(outputs, labels), "logits": outputs}


def hf_trainer(model: nn.Module, folder: Path, *callbacks: Any) -> Any:
    import transformers

    arguments = transformers.TrainingArguments(
        output_dir=str(folder), max_steps=4, learning_rate=0.1, use_cpu=True, report_to=[], save_strategy="no",
        disable_tqdm=True, logging_strategy="no", eval_strategy="epoch",
    )  # fmt: skip
    x, y = examples(16)
    data = [{"x": a, "labels": int(b)} for a, b in zip(x, y, strict=True)]
    return transformers.Trainer(
        model=model, args=arguments, train_dataset=data, eval_dataset=data, callbacks=[*callbacks]  # type: ignore[arg-type]
    )  # fmt: skip


@lacks("transformers", "accelerate")
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_hugging_face_training_leaves_nothing_although_trainer_and_traceback_stay(
    tmp_path: Path, error: type[BaseException]
) -> None:
    import transformers

    class Stop(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            raise error

    model = Loss()
    mask = {"net.weight": torch.rand(3, 6) < 0.5}
    trainer = hf_trainer(model, tmp_path, lth.hf_callback(mask), Stop())
    with pytest.raises(error) as caught:
        trainer.train()
    dense = torch.ones(3, 6)
    model.load_state_dict({"net.weight": dense, "net.bias": torch.zeros(3)})
    assert torch.equal(model.net.weight, dense)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(examples()[0], examples()[1])["loss"].backward()
    assert model.net.weight.grad is not None and model.net.weight.grad.all()
    optimizer.step()
    assert model.net.weight.all() and not model.net.weight._backward_hooks
    assert not model.net._load_state_dict_post_hooks
    trainer.remove_callback(Stop)
    trainer.train()  # and it can be held again
    assert revived(model, mask) == 0 and caught is not None


@lacks("transformers", "accelerate")
@pytest.mark.parametrize("first", ["mask", "average"])
def test_averages_of_another_callback_of_hugging_face_are_masked_in_any_order(tmp_path: Path, first: str) -> None:
    import transformers

    class Average(transformers.TrainerCallback):
        def put(self, *_: Any, model: nn.Module, **__: Any) -> None:
            model.net.weight.data.fill_(1.0)  # type: ignore[union-attr]

        on_epoch_end = on_step_begin = on_train_end = put

    model = Loss()
    mask = {"net.weight": torch.rand(3, 6) < 0.5}
    model.register_forward_hook(lambda *_: alive.append(revived(model, mask)))
    alive: list[int] = []
    callbacks = [lth.hf_callback(mask), Average()]
    hf_trainer(model, tmp_path, *(callbacks if first == "mask" else callbacks[::-1])).train()
    assert len(alive) > 4 and not any(alive) and revived(model, mask) == 0


@lacks("transformers", "accelerate")
def test_a_callback_serves_a_second_trainer_while_the_first_is_deleted(tmp_path: Path) -> None:
    import transformers

    trainers: list[Any] = []

    class Delete(transformers.TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            trainers.clear()
            gc.collect()

    mask = {"net.weight": torch.rand(3, 6) < 0.5}
    callback, model = lth.hf_callback(mask), Loss()
    trainers.append(hf_trainer(Loss(), tmp_path, callback))
    trainers[0].train()
    gone = weakref.ref(trainers[0])
    hf_trainer(model, tmp_path, callback, Delete()).train()
    assert gone() is None and revived(model, mask) == 0 and model.net.weight.any()


@lacks("lightning", "transformers")
def test_callbacks_are_pickled_and_copied() -> None:
    mask = {"net.weight": torch.rand(3, 6) < 0.5}
    for make in (lth.lightning_callback, lth.hf_callback):
        for made in (pickle.loads(pickle.dumps(make(mask, "net"))), copy.deepcopy(make(mask, "net"))):
            assert made.held.module == "net" and torch.equal(made.held.mask["net.weight"], mask["net.weight"])


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nte", "module = 'nte' is not a module of Outer, which has: net; did you mean 'net'?"),
        ("net.0.weight", "module = 'net.0.weight' is not a module of Outer, which has: net; did you mean 'net.0'?"),
        (3, "module = 3 is not a module of Outer, which has: net"),
    ],
)
def test_a_module_that_is_not_there_is_named(place: Any, said: str) -> None:
    """It ended in torch's AttributeError, after the trainer had begun."""

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())

    with pytest.raises(UsageError) as refused:
        part_of(Outer(), place)
    assert str(refused.value) == said
    assert part_of(model := Outer(), "") is model and part_of(model, "net.0") is model.net[0]
