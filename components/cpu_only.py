"""Let PyPI's torch run without NVIDIA's 3 GB of libraries: give it empty ones that answer "no device".

PyPI holds one torch for Linux, linked against CUDA; the CPU build lives on an index of its own. An image for machines without a GPU
needs none of the CUDA code, only the names the loader asks for. For every library that torch's own libraries need and the folder lacks,
this writes one whose functions all return 100 (cudaErrorNoDevice), with the symbols and versions torch expects of it.

    python cpu_only.py SITE_PACKAGES     (needs gcc and binutils; the image's build stage has them)
"""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

NVIDIA = re.compile(r"lib(cu|nccl|nv)\w*\.so\.\d+")


def needed(libraries: list[Path]) -> set[str]:
    """Names of NVIDIA's libraries that these ones ask the loader for."""
    listed = "".join(_run("readelf", "-d", str(library)) for library in libraries)
    return {match.group() for match in NVIDIA.finditer(listed)}


def wanted(libraries: list[Path]) -> dict[str, set[str]]:
    """Version (the library's name, or "" where unversioned) -> functions that none of these libraries defines."""
    undefined = defaultdict(set)
    defined = set()
    for library in libraries:
        for line in _run("nm", "-D", "--with-symbol-versions", str(library)).splitlines():
            *_, kind, symbol = line.split()
            name, _, version = symbol.replace("@@", "@").partition("@")
            if kind in "Uw":
                undefined[version].add(name)
            else:
                defined.add(name)
    return {version: names - defined for version, names in undefined.items()}


def write(torch: Path) -> list[Path]:
    """Write the missing libraries beside torch's own; returns them."""
    libraries = sorted((torch / "lib").glob("*.so*"))
    names = needed(libraries)
    symbols = wanted(libraries)
    versions = defaultdict(set)  # library -> versions asked of it
    for library in libraries:
        for block in re.split(r"\n(?=  \S+ Version: 1  File: |  0x\w+: Version: 1  File: )", _run("readelf", "-V", str(library))):
            file = re.search(r"File: (\S+)", block)
            if file and file.group(1) in names:
                versions[file.group(1)].update(re.findall(r"Name: (\S+)", block))
    made = []
    unversioned = {name for name in symbols.get("", ()) if re.match(r"(cu|nccl|nv|__cu)", name)}
    for name in sorted(names):
        nodes = {version: symbols.get(version, set()) for version in versions[name]}
        made.append(_library(torch / "lib" / name, nodes, unversioned if name.startswith("libcudnn.") else set()))
    return made


def _library(path: Path, nodes: dict[str, set[str]], unversioned: set[str]) -> Path:
    every = set().union(unversioned, *nodes.values())
    source, script = path.with_suffix(".c"), path.with_suffix(".map")
    source.write_text("".join(f"long {name}(void) {{ return 100; }}\n" for name in sorted(every)))
    script.write_text("".join(f"{v} {{ global: {''.join(f'{n}; ' for n in sorted(names))} }};\n" for v, names in sorted(nodes.items())))
    options = [f"-Wl,--version-script={script}"] if nodes else []
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-w", "-fno-builtin", f"-Wl,-soname,{path.name}", *options, "-o", str(path), str(source)], check=True
    )
    source.unlink()
    script.unlink()
    return path


def _run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    for made in write(Path(sys.argv[1]) / "torch"):
        print(made)
