"""`voxloss view`: the report in the browser."""

import argparse

from voxloss.commands.shared import Parsers, add_command, existing_path, whole_number


def add_parser(parsers: Parsers) -> None:
    """Add the parser of `voxloss view`."""
    summary = "open a study's report in the browser, served to this machine only"
    parser = add_command(parsers, "view", view, summary)
    parser.add_argument("study", type=existing_path, metavar="STUDY", help="folder of the study")
    parser.add_argument("--port", type=whole_number, default=0, help="port of the address (default: a free one)")
    parser.add_argument("--no-browser", action="store_true", help="print the address without opening a browser")


def view(arguments: argparse.Namespace) -> int:
    """Run `voxloss view` and return its exit status."""
    # pandas, and what only this command needs
    import threading
    import webbrowser

    from voxloss.report import build_report
    from voxloss.report.page.server import report_server

    if not (arguments.study / "report" / "index.html").is_file():
        build_report(arguments.study)
    with report_server(arguments.study, arguments.port) as server:
        print(f"{server.address}  (press Ctrl-C to stop)", flush=True)
        if not arguments.no_browser:  # in a thread: a browser in this terminal would keep the server waiting
            threading.Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0
