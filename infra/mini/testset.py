"""The test set: glyphs of the family that is never served, as a zero-shot task in CLIP_benchmark's layout.

out     classnames.txt, zeroshot_classification_templates.txt, test/nshards.txt, test/0.tar (000000.png, 000000.cls, ...)
law     drawn with the same settings as the served pictures; no font of a served family
"""

import io
import os
import tarfile

from infra.mini import glyphs, pictures

TEMPLATES = (
    "{c} icon",
    "an icon of a {c}",
    "a {c}",
    "a drawing of a {c} on a background",
    "simple {c} drawing",
    "a {c} sign, flat design",
    "vector graphic of a {c}",
    "{c} symbol for web pages",
)


def write(seed: int, per_concept: int, folder: str) -> int:
    """Write the test set, `per_concept` pictures of each, and return the number of its pictures."""
    os.makedirs(os.path.join(folder, "test"), exist_ok=True)
    concepts = glyphs.concepts()
    for path, lines in (
        ("classnames.txt", concepts),
        ("zeroshot_classification_templates.txt", TEMPLATES),
        ("test/nshards.txt", ("1",)),
    ):
        with open(os.path.join(folder, path), "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    with tarfile.open(os.path.join(folder, "test", "0.tar"), "w") as tar:
        for number in range(len(concepts) * per_concept):
            label = number % len(concepts)
            what = pictures.drawing(seed, f"test{number}", concepts[label], "png", (glyphs.TEST_FAMILY,))
            for suffix, data in (("png", pictures.make(seed, what, 0).data), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{number:06d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return len(concepts) * per_concept
