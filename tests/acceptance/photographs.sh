#!/usr/bin/env bash
# Photographs of one's own with every quirk that cameras, editors and web pages leave. 3 minutes on an idle machine.
#   WORK=DIR tests/acceptance/photographs.sh     with zoo's environment first on the path
# It needs scikit-image for the pictures, pillow-heif for HEIC, and datasets for the tables of Hugging Face.
set -uo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
source "$HERE/steps.sh"
COMMON="--method dense --arch test_resnet --epochs 1 --n 8 --batch-size 16 --image-size 32 --overwrite true --trainer.enable_progress_bar false"
TRAIN="zoo train $COMMON --data imagefolder --data-dir photos"

# together: commands from standard input, see in_one_process.py.
together() {
    python "$HERE/in_one_process.py" || exit 1
}

# card RUN KEY WORDS: the card of a run has WORDS under a key of its training.
card() {
    python -c 'import json, sys; found = json.load(open(sys.argv[1] + "/card.json"))["training"][sys.argv[2]]; print(sys.argv[1], sys.argv[2] + ":", found); sys.exit(sys.argv[3] not in found)' "$@" ||
        { echo "FAILED: it is not $3"; exit 1; }
}

echo "== the photographs"
rm -rf photos run-* no
python "$HERE/photographs.py" photos || exit 1

together <<LINES
works | validation: val/ | $TRAIN/tree --out run-tree
works | validation: 10 % of the training images | $TRAIN/two --out run-two
works | measured on held-out training images, 10 % of train/ | $TRAIN/alone --out run-alone
refused | has no folder train.*--test-fraction 0.2 | $TRAIN/flat --out no
works | measured on held-out training images, 25 % of the images | $TRAIN/flat --image-size 72 --test-fraction 0.25 --augment standard --out run-flat
works | held-out training images, 25 % | zoo evaluate run-flat --attacks fgsm --eps 2/255 --n 8
refused | has a test split | $TRAIN/two --test-fraction 0.2 --out no
works | skipped: 8 files that are not images | $TRAIN/quirks --image-size 72 --test-fraction 0.25 --augment strong --mean 0.5,0.5,0.5 --std 0.25,0.25,0.25 --out run-quirks
works | . | zoo export run-tree --target generic --embed-preprocessing true
refused | 3 files cannot be read as images: train/cat/cut.jpg .*train/rocket/page.jpg .*test/flower/empty.png.*--skip-corrupt true | $TRAIN/corrupt --out no
works | skipped: 3 that cannot be used: train/cat/cut.jpg | $TRAIN/corrupt --skip-corrupt true --out run-corrupt
refused | class folders .*train/cup, .*train/dog hold no images | $TRAIN/empty --out no
refused | differ in case only, Cat and cat | $TRAIN/case --out no
refused | test/Coffee is no class of .*differs in case only | $TRAIN/unknown --out no
refused | pixel.gif .*1 x 1 pixels show nothing | $TRAIN/small --out no
refused | scan.png cannot be read .*exceeds limit | $TRAIN/large --out no
works | large: train/cat/poster.jpg .10000 x 10000 | $TRAIN/large --skip-corrupt true --out run-large
refused | did you mean standard | $TRAIN/two --augment standart --out no
refused | needs whole labels | $TRAIN/two --augment strong --adversary mart --out no
refused | give both | $TRAIN/two --mean 0.5,0.5,0.5 --out no
refused | has no option test_fraction | zoo train $COMMON --data digits --test-fraction 0.2 --out no
works | shards: 3 | zoo train $COMMON --data webdataset --data-dir photos/shards --out run-shards
refused | train-001.tar .* end early or are not tar files | zoo train $COMMON --data webdataset --data-dir photos/cut_shards --out no
works | 40 images of 4 classes | zoo train $COMMON --data huggingface --data-dir photos/table --out run-table
LINES

echo "== the cards say whose normalisation and which images"
card run-tree normalization "ImageNet's"
card run-quirks normalization given
card run-flat test_images held-out

echo "== the same logits however the camera was held"
works -n 5 python "$HERE/same_logits.py" run-tree photos/pair "$HERE/../../zoo/serving/serve.py" "$HERE/../../docs/serving.md"

[[ ! -e no ]] || { echo "FAILED: something was left behind"; exit 1; }
finished
