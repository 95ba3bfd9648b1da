"""Tell on one page what works on this machine, what does not, and how to mend it.

    python tools/doctor.py
    python tools/doctor.py --data data/ucf101.parquet --runs /scratch/runs
    python tools/doctor.py --versions > versions.txt

Every check tries the real thing: a kernel on the GPU, the driver's video library, DALI, Triton, a C++
compiler, a video encoded and decoded, shared memory, word vectors, the speed of the disk that runs go to,
and of each manifest whether a sample of its videos is there as it was indexed.

--versions prints every installed package as NAME==VERSION and checks nothing: what an audit reads
(docs/security.md), and what installs the same again.

Exit status 0 if a run can work here (also where something is only slower), 1 if there is a blocker.
"""

import options

from engine.errors import read_command, run_command

if __name__ == "__main__":  # before the imports below, which take seconds
    ARGUMENTS = read_command(options.doctor, __doc__)

import argparse
import json
import sys
from dataclasses import asdict

from engine.diagnosis import diagnose
from engine.provenance import installed
from engine.records import device, versions
from engine.results.table import Table
from engine.terminal.command_line import check_local, check_shown


def main(arguments: argparse.Namespace) -> None:
    """Check, print the page."""
    if arguments.versions:
        # Without the build's name (+cu130), which package indices and databases of vulnerabilities do not know.
        pinned = {name: version.partition("+")[0] for name, version in installed().items() if name != "unseen"}
        print("\n".join(f"{name}=={version}" for name, version in pinned.items()))
        check_shown()
        return
    check_local(arguments.runs, "--runs")
    findings = diagnose(arguments.runs, arguments.data)
    if arguments.json:
        print(json.dumps({"versions": versions(), "device": device(), "findings": [asdict(f) for f in findings]}))
    else:
        about = ", ".join(f"{name} {version}" for name, version in versions().items())
        print(f"{device()['cpu']}, {device()['cores']} cores\n{about}\n")
        print(Table(["", "", "found"], [[f.state, f.name, f.text] for f in findings]).text())
        for finding in findings:
            if finding.state != "ok" and finding.mend:
                print(f"{finding.name}: {finding.mend}")
    check_shown()
    sys.exit(1 if any(finding.state == "blocker" for finding in findings) else 0)


if __name__ == "__main__":
    run_command(main, ARGUMENTS)
