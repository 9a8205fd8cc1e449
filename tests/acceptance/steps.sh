# Sourced by the scripts here: run a command as a user types it, show its outcome, and stop at the first that is wrong.

cd "${WORK:?give the folder to work in, which will be made}" 2>/dev/null || { mkdir -p "$WORK" && cd "$WORK"; }
export COLUMNS=110
STARTED=$SECONDS

# works [-n LINES] COMMAND...: ends with 0; shows its last lines.
works() {
    local lines=4
    [[ $1 == -n ]] && lines=$2 && shift 2
    printf '\n$ %s\n' "$*"
    local code=0
    "$@" >out 2>&1 || code=$?
    ((code == 0)) || { tail -n 30 out; echo "FAILED: it ended with $code"; exit 1; }
    tr '\r' '\n' <out | grep -v '^$' | tail -n "$lines"
}

# refused WORDS COMMAND...: ends with 2 and one line that holds WORDS (a regular expression), without a traceback.
refused() {
    local words=$1 code=0
    shift
    printf '\n$ %s\n' "$*"
    "$@" >out 2>&1 || code=$?
    tr '\r' '\n' <out | grep -v '^$' | tail -n 3
    ((code == 2)) || { echo "FAILED: it ended with $code, not 2"; exit 1; }
    ! grep -q Traceback out || { echo "FAILED: it shows a traceback"; exit 1; }
    (($(grep -c '^zoo: ' out) == 1)) || { echo "FAILED: it is not one line"; exit 1; }
    tail -n 1 out | grep -qE "$words" || { echo "FAILED: its last line does not hold: $words"; exit 1; }
}

# python_refuses WORDS CODE: raises UserError, with WORDS in its message.
python_refuses() {
    printf '\n>>> %s\n' "$2"
    python - "$1" "$2" <<'PYTHON' || exit 1
import re, sys
from zoo.errors import UserError
try:
    exec(sys.argv[2])
except UserError as error:
    print(error)
    sys.exit(0 if re.search(sys.argv[1], str(error)) else "FAILED: it does not hold: " + sys.argv[1])
sys.exit("FAILED: nothing was refused")
PYTHON
}

finished() {
    printf '\nall as promised, %d s\n' $((SECONDS - STARTED))
}
