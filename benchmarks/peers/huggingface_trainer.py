"""Hugging Face's Trainer, near its image classification example: 5 epochs, AdamW, random crops and flips."""

import tempfile

import numpy as np
import timm
import torch
from clock import Task, start
from masked import masked_bce
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed


class Photos(Dataset):
    """Dictionaries of pixel_values and labels."""

    def __init__(self, task: Task, subset: str, transform) -> None:
        rows = task.rows(subset)
        self.paths = [f"{task.images}/{name}" for name in rows["image"]]
        self.labels = torch.from_numpy(rows[task.attributes].to_numpy(np.float32))
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        image = Image.open(self.paths[index]).convert("RGB")
        return {"pixel_values": self.transform(image), "labels": self.labels[index]}


class MultiLabel(nn.Module):
    """A timm model that gives the loss beside its logits, as the Trainer wants it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values, labels=None):
        logits = self.model(pixel_values)
        return (
            {"logits": logits} if labels is None else {"loss": masked_bce(logits, labels), "logits": logits}
        )


class EachEpoch(TrainerCallback):
    """Calls a function after each epoch's evaluation."""

    def __init__(self, call) -> None:
        self.call = call

    def on_evaluate(self, args, state, control, **more) -> None:
        self.call()


def main() -> None:
    task, clock = start()
    set_seed(task.seed)
    backbone = timm.create_model(task.backbone, num_classes=len(task.attributes), **task.timm_arguments())
    model = MultiLabel(backbone)
    train_transform, test_transform = build_transforms(task, backbone)
    test = DataLoader(Photos(task, "test", test_transform), batch_size=32, num_workers=2)

    def score() -> np.ndarray:
        training = model.training
        model.eval()
        with torch.no_grad():
            scores = [torch.sigmoid(model(batch["pixel_values"])["logits"]) for batch in test]
        model.train(training)
        return torch.cat(scores).numpy()

    own = {"learning_rate": 5e-5, "num_train_epochs": 5, "per_device_train_batch_size": 8}
    if task.scratch:
        own = {
            "learning_rate": task.scratch["lr"],
            "num_train_epochs": task.scratch["epochs"],
            "per_device_train_batch_size": task.scratch["batch_size"],
        }
    if task.epochs is not None:
        own["num_train_epochs"] = task.epochs
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            **own,
            per_device_eval_batch_size=8,
            remove_unused_columns=False,
            logging_strategy="steps",
            logging_steps=10,
            eval_strategy="epoch",
            save_strategy="epoch",
            load_best_model_at_end=True,
            save_total_limit=3,
            dataloader_num_workers=2,
            report_to="none",
            disable_tqdm=True,
            seed=task.seed,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=Photos(task, "train", train_transform),
            eval_dataset=Photos(task, "val", test_transform),
            callbacks=[EachEpoch(lambda: clock.epoch(score))],
        )
        trainer.train()
        clock.finish(score)


def build_transforms(task: Task, backbone: nn.Module) -> tuple[transforms.Compose, transforms.Compose]:
    """The example's: for training and for the rest."""
    size, settings = task.image_size, backbone.default_cfg
    end = [transforms.ToTensor(), transforms.Normalize(settings["mean"], settings["std"])]
    if task.scratch:  # the scenes have one size, and a digit cut off is none
        return transforms.Compose(end), transforms.Compose(end)
    flips = [transforms.RandomHorizontalFlip()] if task.flips else []
    train = [transforms.RandomResizedCrop(size), *flips, *end]
    test = [transforms.Resize(size), transforms.CenterCrop(size), *end]
    return transforms.Compose(train), transforms.Compose(test)


if __name__ == "__main__":
    main()
