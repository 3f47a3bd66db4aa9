"""The built-in scenes of digits: read the table, train for one epoch, ask the classifier about one scene."""

from rich.console import Console

from mlcls import Predictor, build_recipe, fit, read_table
from mlcls.labels.demo import write_digits

if __name__ == "__main__":  # workers may start as processes of their own
    table = read_table(write_digits())
    print(f"{len(table.images)} images, attributes: {', '.join(table.attributes)}")
    record = fit(build_recipe("demo", epochs=1), out="outputs/quickstart", overwrite=True, console=Console())
    print("macro average precision on test:", record.evaluation["test"]["macro"]["average_precision"])
    row = Predictor("outputs/quickstart").predict([table.images_dir / table.images[0]])[0]
    print(row["image"], "shows", row["present"])
