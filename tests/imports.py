"""Import the package for each given case in its own process, and print what was found, one line per case.

Arguments: the folder of the third-party packages, and the cases in JSON.
"""

import importlib
import json
import os
import pkgutil
import site
import sys


def import_all(case: dict) -> dict:
    import ssl_modules  # noqa: PLC0415
    import ssl_modules.callbacks  # noqa: PLC0415
    import ssl_modules.datamodules  # noqa: PLC0415

    names = ["ssl_modules", "ssl_modules.callbacks", "ssl_modules.datamodules"]
    case["files"] = {name: sys.modules[name].__file__ for name in names}
    case["bare"] = {name: bare_import(name) for name in ("callbacks", "datamodules")}
    from ssl_modules.callbacks import OnlineProbe  # noqa: PLC0415

    case["one_module"] = issubclass(ssl_modules.callbacks.OnlineKNNProbe, OnlineProbe)
    if (case["install"], case["place"]) == ("wheel", "outside"):
        found = pkgutil.walk_packages(ssl_modules.__path__, "ssl_modules.")
        modules = ["ssl_modules", *(module.name for module in found if module.name != "ssl_modules.__main__")]
        case["modules"] = {name: importlib.import_module(name).__file__ for name in modules}
    return case


def bare_import(name: str) -> str:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        return str(error)
    return "mine" if hasattr(module, "mine") else str(module)


def run(case: dict) -> None:
    os.chdir(case["folder"])
    sys.path[0] = ""  # the current folder, as with python -c
    sys.path.insert(1, case["path"])
    if case["install"] == "editable":
        site.addsitedir(case["path"])  # processes the .pth file
    case["error"] = None
    try:
        import_all(case)
    except Exception as error:
        case["error"] = repr(error)
    print(json.dumps(case), flush=True)


if __name__ == "__main__":
    third_party, cases = sys.argv[1:]
    sys.path.append(third_party)
    for heavy in ("lightning.pytorch", "timm", "torchvision", "torchmetrics", "sklearn.model_selection"):
        importlib.import_module(heavy)
    for case in json.loads(cases):
        child = os.fork()
        if child == 0:
            run(case)
            os._exit(0)
        os.waitpid(child, 0)
