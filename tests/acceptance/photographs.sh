#!/usr/bin/env bash
# Photographs of one's own with every quirk that cameras, editors and web pages leave. 5 minutes on an idle machine.
#   WORK=DIR tests/acceptance/photographs.sh     with zoo's environment first on the path; needs scikit-image, and pillow-heif for HEIC
set -uo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
source "$HERE/steps.sh"
SMALL=(--arch test_resnet --method dense --epochs 1 --n 40 --batch-size 16 --image-size 64 --overwrite true)

# says WORDS: the last command said so (a regular expression).
says() {
    tr '\r' '\n' <out | grep -qE "$1" || { echo "FAILED: it does not say: $1"; exit 1; }
}

# train FOLDER OPTIONS...: an epoch on it, with the summary that comes first.
train() {
    local folder=$1
    shift
    works -n 40 zoo train "${SMALL[@]}" --data imagefolder --data-dir "photos/$folder" --out "run-$folder" "$@"
}

echo "== the photographs"
rm -rf photos run-*
python "$HERE/photographs.py" photos || exit 1

echo "== every layout"
train tree
says "validation: val/"
says "test: test/"
train two
says "validation: 10 % of the training images"
train alone
says "measured on held-out training images, 10 % of train/"
refused "has no folder train.*--test-fraction 0.2" zoo train "${SMALL[@]}" --data imagefolder --data-dir photos/flat --out no
train flat --test-fraction 0.25 --augment standard
says "measured on held-out training images, 25 % of the images"
works zoo evaluate run-flat --attacks fgsm --eps 2/255 --n 20
says "held-out training images, 25 %"
refused "has a test split" zoo train "${SMALL[@]}" --data imagefolder --data-dir photos/two --test-fraction 0.2 --out no

echo "== every kind of file: turned, CMYK, 16 bits, palette, transparent, animated, HEIC, AVIF"
train quirks --test-fraction 0.25 --augment strong --mean 0.5,0.5,0.5 --std 0.25,0.25,0.25
says "skipped: 8 files that are no images"
grep -q '"normalization": "given"' run-quirks/card.json || { echo "FAILED: the card does not say whose normalisation"; exit 1; }
grep -q "ImageNet's" run-tree/card.json || { echo "FAILED: the card does not say whose normalisation"; exit 1; }

echo "== the same logits however the camera was held"
works zoo export run-tree --target generic --embed-preprocessing true
works -n 5 python "$HERE/same_logits.py" run-tree photos/pair "$HERE/../../zoo/serving/serve.py" "$HERE/../../docs/serving.md"

echo "== bad input"
refused "3 files cannot be read as images: train/cat/cut.jpg .*train/rocket/page.jpg .*test/flower/empty.png.*--skip-corrupt true" \
    zoo train "${SMALL[@]}" --data imagefolder --data-dir photos/corrupt --out no
train corrupt --skip-corrupt true
says "skipped: 3 that cannot be used: train/cat/cut.jpg"
refused "class folders .*train/cup, .*train/dog hold no images" zoo train "${SMALL[@]}" --data imagefolder --data-dir photos/empty --out no
refused "differ in case only, Cat and cat" zoo train "${SMALL[@]}" --data imagefolder --data-dir photos/case --out no
refused "test/Coffee is no class of .*differs in case only" zoo train "${SMALL[@]}" --data imagefolder --data-dir photos/unknown --out no
refused "pixel.gif .*1 x 1 pixels show nothing" zoo train "${SMALL[@]}" --data imagefolder --data-dir photos/small --out no
refused "scan.png cannot be read .*exceeds limit" zoo train "${SMALL[@]}" --data imagefolder --data-dir photos/large --out no
train large --skip-corrupt true
says "large: train/cat/poster.jpg \(10000 x 10000\)"
refused "did you mean" zoo train "${SMALL[@]}" --data imagefolder --data-dir photos/two --augment standart --out no
refused "needs whole labels" zoo train "${SMALL[@]}" --data imagefolder --data-dir photos/two --augment strong --adversary mart --out no
refused "give both" zoo train "${SMALL[@]}" --data imagefolder --data-dir photos/two --mean 0.5,0.5,0.5 --out no
[[ ! -e no ]] || { echo "FAILED: something was left behind"; exit 1; }
finished
