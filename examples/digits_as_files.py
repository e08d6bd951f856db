"""Write scikit-learn's digits in the two formats that mint reads: image files and Parquet.

The script writes data/digits-images/train/CLASS/*.png and test/CLASS/*.png, and
data/digits-parquet/data/train-*.parquet and test-*.parquet in Hugging Face's image schema.
"""

from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

DATA = Path("data")


def main() -> None:
    """Write both formats into the folder data of the current folder."""
    digits = load_digits()
    pixels = (digits.images * 15).astype(np.uint8)  # pixels are 0 to 16
    rows = np.arange(len(pixels))
    train, test = train_test_split(rows, test_size=360, random_state=0, stratify=digits.target)
    for part, chosen in (("train", train), ("test", test)):
        files = []
        for row in chosen:
            file = BytesIO()
            Image.fromarray(pixels[row]).save(file, "png")
            files.append(file.getvalue())
            path = DATA / "digits-images" / part / str(digits.target[row]) / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[-1])
        images = [
            {"bytes": file, "path": f"{row}.png"} for row, file in zip(chosen, files, strict=True)
        ]
        table = pa.table({"image": images, "label": digits.target[chosen]})
        path = DATA / "digits-parquet" / "data" / f"{part}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, path)
        print(f"{part}: {len(chosen)} images")


if __name__ == "__main__":
    main()
