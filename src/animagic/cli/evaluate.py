"""The command that measures how well a model does what it is asked."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from .app import Json, Model, app, print_json, say, tell
from .options import Device, Quiet, Threads
from .progress import bar


@app.command("eval")
def evaluate(
    suite: Annotated[str | None, typer.Argument(help="What is measured; without it, the suites are listed.")] = None,
    video: Annotated[
        str | None, typer.Argument(help="With talk: a video that was made, judged in place of a model.")
    ] = None,
    audio: Annotated[str | None, typer.Option(help="With a video: what is said in it; default: its sound.")] = None,
    portrait: Annotated[
        str | None, typer.Option(help="With a video: a picture of who it should be; default: its first frame.")
    ] = None,
    syncnet: Annotated[
        str | None, typer.Option(metavar="FILE", help="With talk: SyncNet's weights, for its confidence and distance.")
    ] = None,
    model: Model = "magi1-tiny",
    count: Annotated[int | None, typer.Option(help="Cases; default: the suite's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first case; default: the suite's.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps; default: the model's.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; default: the model's.")] = None,
    frames: Annotated[int | None, typer.Option(help="Frames of every video; default: the suite's.")] = None,
    batch: Annotated[int | None, typer.Option(help="Videos made together; default: the suite's.")] = None,
    motion_apart: Annotated[
        bool, typer.Option("--motion-apart", help="The motion prompt alone says how things move.")
    ] = False,
    pairs: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="GENERATED TRUE", help="Compare the videos of a folder with the true ones of another."),
    ] = None,
    fid_vid_backbone: Annotated[
        str | None, typer.Option(metavar="FILE", help="With --pairs: the network for FID-VID, a TorchScript file.")
    ] = None,
    fvd_backbone: Annotated[
        str | None, typer.Option(metavar="FILE", help="With --pairs: the network for FVD, a TorchScript file.")
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="The report, a JSON file.")] = "report.json",
    sheet: Annotated[
        str | None, typer.Option(help="Also write a PNG of results, with what is wrong about each.")
    ] = None,
    page: Annotated[str | None, typer.Option(metavar="FILE.html", help="Also write a page of all results.")] = None,
    list_suites: Annotated[bool, typer.Option("--list", help="List the suites and leave.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep finished cases beside the report, and go on from them.")
    ] = False,
    device: Device = None,
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure how well a model does what it is asked, on scenes that it has never seen; or judge and compare videos."""
    if not (find_spec("skimage") and find_spec("skia")):
        raise InputError("evaluation needs scikit-image and skia-python: pip install 'animagic[eval]'.")
    from .. import evaluation, zoo
    from ..evaluation.suites import find_suite
    from ..media.files import atomic_path, check_writable
    from ..media.keeping import RunPlace, check_apart
    from ..pipelines.devices import use_threads
    from ..requests import load_pipeline

    backbones = {"FID-VID": fid_vid_backbone, "FVD": fvd_backbone}
    files = {name: file for name, file in backbones.items() if file is not None}
    if pairs is None and files:
        raise InputError("a backbone compares videos: give it together with --pairs GENERATED TRUE.")
    if pairs is not None and suite is not None:
        raise InputError(f"give either --pairs or a suite, not both {suite} and --pairs.")
    given = {"count": count, "seed": seed, "steps": steps, "guidance": guidance, "frames": frames, "batch": batch}
    given |= {"motion-apart": motion_apart or None, "resume": resume or None}
    if pairs is not None and (unused := [name for name, value in given.items() if value is not None]):
        raise InputError(f"--pairs makes no videos: leave out --{unused[0]}.")
    if video is not None and suite != "talk":
        raise InputError(f"a video is judged by the suite talk: leave out {video}, or write talk in place of {suite}.")
    if video is None and (audio or portrait):
        raise InputError("--audio and --portrait belong to a video: animagic eval talk VIDEO --audio FILE.")
    if syncnet is not None and not (suite or "").startswith("talk"):
        raise InputError("--syncnet judges people who talk: give it together with talk, talk-long or talk-benchmark.")
    if video is not None and (unused := [name for name, value in given.items() if value is not None]):
        raise InputError(f"a video is judged as it is: leave out --{unused[0]}.")
    if page is not None and (video or pairs):
        raise InputError("--page shows what a suite has found: leave it out.")
    if (suite is None and pairs is None) or list_suites:
        suites = {one.name: one.summary for one in evaluation.SUITES.values()}
        print_json(suites) if as_json else tell("\n".join(f"{name:>12}  {text}" for name, text in suites.items()))
        return
    if suite is not None:
        find_suite(suite)
    if sheet is not None and not sheet.lower().endswith((".png", ".jpg", ".jpeg")):
        raise InputError(f"{sheet} is no picture: end --sheet in .png or .jpg.")
    for file in filter(None, (output, sheet, page)):
        check_writable(Path(file))
    given_files = {"video": video, "voice": audio, "portrait": portrait, "SyncNet": syncnet} | files
    given_files |= dict(zip(("folder of made videos", "folder of true videos"), pairs or (), strict=False))
    read = {name: file for name, file in given_files.items() if file is not None}
    check_apart(read, {"report": output, "sheet": sheet, "page": page})
    use_threads(threads)
    if suite is None:
        assert pairs is not None
        with bar(quiet) as show:
            found = evaluation.compare_videos(
                *pairs, backbones=files, on_progress=lambda name, done, total: show("comparing", done, total, name)
            )
        picture = None if sheet is None else evaluation.pairs_sheet(found)
        _write(found.report, evaluation.pairs_table(found.report), picture, output, sheet, as_json)
        return
    if video is not None:
        report, picture = evaluation.judge_video(video, audio, portrait, evaluation.sync_scores(syncnet))
        _write(report, evaluation.video_table(report), picture, output, sheet, as_json)
        return
    folder = Path(f"{output}.cases")
    place = RunPlace(folder, ["*.png"]) if resume else None
    loras, motion_loras = zoo.loras(model), zoo.loras(model, "motion_loras")
    try:
        with bar(quiet) as show:
            result = evaluation.evaluate(
                load_pipeline(model, device),
                evaluation.with_scores(suite, syncnet),
                model=model,
                count=count,
                seed=seed,
                frames=frames,
                steps=steps,
                guidance=guidance,
                batch=batch,
                motion_apart=motion_apart,
                loras=loras,
                motion_loras=motion_loras,
                folder=folder if resume else None,
                on_progress=lambda variant, done, total: show(suite, done, total, variant),
            )
    except KeyboardInterrupt:
        if resume and folder.exists():
            say(f"{folder} holds the finished cases: the same command goes on from them.")
        raise
    if page is not None:
        with atomic_path(page) as temporary:
            temporary.write_text(evaluation.page(result), "utf-8")
    picture = None if sheet is None else evaluation.sheet(result)
    _write(result.report, evaluation.table(result.report), picture, output, sheet, as_json)
    if place is not None:
        place.remove()


def _write(report: dict[str, Any], table: str, picture: Any, output: str, sheet: str | None, as_json: bool) -> None:
    """The report and the sheet, and what is said of them."""
    from ..media import atomic_path, write_image

    with atomic_path(output) as temporary:
        temporary.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    if sheet is not None:
        write_image(sheet, picture)
    if as_json:
        names = ("suite", "model", "video", "generated", "truth", "cases", "seconds", "summary")
        print_json({"output": output, "sheet": sheet} | {name: report[name] for name in names if name in report})
    else:
        say(f"done in {report['seconds']:.0f} s; the report is {output}{f', the sheet {sheet}' if sheet else ''}")
        tell(table)
