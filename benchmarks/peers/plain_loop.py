"""A plain loop of timm and PyTorch: a frozen backbone under a new head, then its last stage; early stopping.

As people publish it for tables of attributes: batches of 16, AdamW, 2e-3 for the head alone in the first three epochs,
then 1e-4 with the last stage, binary cross-entropy with pos_weight, PIL and torchvision, at most 50 epochs, five of
patience, the best validation loss's weights at the end.
"""

import copy

import numpy as np
import timm
import torch
from clock import Task, start
from masked import masked_bce
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

BATCH_SIZE, EPOCHS, PATIENCE, WORKERS = 16, 50, 5, 2
LR_HEAD, LR_FINETUNE, UNFREEZE_EPOCH = 2e-3, 1e-4, 3


class Photos(Dataset):
    """A transformed image and its labels."""

    def __init__(self, task: Task, subset: str, transform) -> None:
        rows = task.rows(subset)
        self.paths = [f"{task.images}/{name}" for name in rows["image"]]
        self.labels = torch.from_numpy(rows[task.attributes].to_numpy(np.float32))
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(Image.open(self.paths[index]).convert("RGB")), self.labels[index]


class Model(nn.Module):
    """A timm backbone and a head of two layers."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.backbone = timm.create_model(task.backbone, num_classes=0, **task.timm_arguments())
        settings = self.backbone.default_cfg
        with torch.no_grad():
            self.backbone.eval()
            width = self.backbone(torch.zeros(1, 3, task.image_size, task.image_size)).shape[1]
        self.mean, self.std = settings["mean"], settings["std"]
        self.head = nn.Sequential(
            nn.BatchNorm1d(width),
            nn.Dropout(0.5),
            nn.Linear(width, 128),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(128, len(task.attributes)),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        return self.head(self.backbone(pixels))

    def freeze(self) -> None:
        self.backbone.requires_grad_(False)

    def trained_parts(self) -> list[nn.Module]:
        """The backbone's modules that train: its last stage and what follows it, where anything does."""
        if all(p.requires_grad for p in self.backbone.parameters()):
            return [self.backbone]
        return [part for part in last_stage(self.backbone) if next(part.parameters()).requires_grad]

    def train_what_trains(self) -> None:
        """Frozen BatchNorms keep their statistics."""
        self.eval()
        self.head.train()
        for part in self.trained_parts():
            part.train()


def last_stage(backbone: nn.Module) -> list[nn.Module]:
    """layer4 of a ResNet; the last blocks and the layers after them of a MobileNet."""
    if hasattr(backbone, "layer4"):
        return [backbone.layer4]
    after = [getattr(backbone, name) for name in ("conv_head", "bn2") if hasattr(backbone, name)]
    return [backbone.blocks[-1], *after]


def main() -> None:
    task, clock = start()
    torch.manual_seed(task.seed)
    model = Model(task)
    scratch = task.scratch or {}
    batch_size = scratch.get("batch_size", BATCH_SIZE)
    training, evaluation = build_transforms(task, model)
    loader = DataLoader(
        Photos(task, "train", training), batch_size, shuffle=True, num_workers=WORKERS, drop_last=True
    )
    val, test = (
        DataLoader(Photos(task, subset, evaluation), batch_size, num_workers=WORKERS)
        for subset in ("val", "test")
    )
    labels = loader.dataset.labels
    pos_weight = None if scratch else (labels == 0).sum(0) / (labels == 1).sum(0).clamp(min=1)
    epochs = task.epochs or scratch.get("epochs", EPOCHS)
    if task.scratch:
        optimizer = torch.optim.AdamW(model.parameters(), lr=scratch["lr"])
    else:
        model.freeze()
        optimizer = torch.optim.AdamW(model.head.parameters(), lr=LR_HEAD)
    best, best_weights, waited = float("inf"), None, 0
    for epoch in range(epochs):
        if epoch == UNFREEZE_EPOCH and not task.scratch:
            for part in last_stage(model.backbone):
                part.requires_grad_(True)
            trained = [p for p in model.parameters() if p.requires_grad]
            optimizer = torch.optim.AdamW(trained, lr=LR_FINETUNE)
        model.train_what_trains()
        for pixels, targets in loader:
            optimizer.zero_grad()
            loss = masked_bce(model(pixels), targets, pos_weight)
            loss.backward()
            optimizer.step()
        val_loss = validate(model, val, pos_weight)
        clock.epoch(lambda: predict(model, test), val_loss=val_loss)
        waited += 1
        if val_loss < best:
            best, best_weights, waited = val_loss, copy.deepcopy(model.state_dict()), 0
        if waited >= PATIENCE and not task.scratch:
            break
    model.load_state_dict(best_weights)
    clock.finish(lambda: predict(model, test))


def validate(model: Model, batches: DataLoader, pos_weight: Tensor | None) -> float:
    """The mean loss of the validation batches."""
    model.eval()
    with torch.no_grad():
        losses = [masked_bce(model(pixels), targets, pos_weight).item() for pixels, targets in batches]
    return sum(losses) / len(losses)


def predict(model: Model, batches: DataLoader) -> np.ndarray:
    """Probabilities [N, A]."""
    model.eval()
    with torch.no_grad():
        return torch.cat([torch.sigmoid(model(pixels)) for pixels, _ in batches]).numpy()


def build_transforms(task: Task, model: Model) -> tuple[transforms.Compose, transforms.Compose]:
    """Random crop, flip, colour, perspective, erasing for training; squashed for the rest."""
    size = task.image_size
    end = [transforms.ToTensor(), transforms.Normalize(model.mean, model.std)]
    evaluation = transforms.Compose([transforms.Resize((size, size)), *end])
    if task.scratch:
        return evaluation, evaluation
    larger = round(size * 256 / 224)
    training = [
        transforms.Resize((larger, larger)),
        transforms.RandomCrop(size),
        *([transforms.RandomHorizontalFlip()] if task.flips else []),
        transforms.ColorJitter(0.2, 0.2, 0.2, 0.05),
        transforms.RandomPerspective(0.2, p=0.3),
        *end,
        transforms.RandomErasing(p=0.2),
    ]
    return transforms.Compose(training), evaluation


if __name__ == "__main__":
    main()
