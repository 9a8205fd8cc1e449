#!/usr/bin/env bash
# `mkdocs build --strict --quiet` exits with 0 on broken links; --quiet turns --strict off.
#
# Seen with mkdocs 1.6.1 on Linux, Python 3.11, 1 December 2026. A page links to one that does not exist. With --strict
# the build ends with code 1, "Aborted with 1 warnings in strict mode!". With --strict --quiet, which is what a CI job
# with a short log would use, nothing is printed and the code is 0: warnings below the level of the log are not counted.
# What to do: build without --quiet, and send the output to a file that is shown when the build fails.
#
# Output seen:
#   --strict: code 1
#   --strict --quiet: code 0
# Exits 0 as long as this is so, 1 when it changes. It needs Python 3.11 or newer and a package index.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install -q mkdocs==1.6.1
cd "$work"
mkdir docs
echo 'site_name: links' >mkdocs.yml
printf '# Home\n\nA [page](gone.md) that is not there.\n' >docs/index.md
seen=""
for options in "--strict" "--strict --quiet"; do
    rm -rf site
    code=0
    # shellcheck disable=SC2086
    NO_MKDOCS_2_WARNING=1 env/bin/mkdocs build $options >log.txt 2>&1 || code=$?
    echo "$options: code $code"
    seen+="$code;"
done
[ "$seen" = "1;0;" ]
