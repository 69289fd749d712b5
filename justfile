# What is done with limner by hand, by name (https://just.systems): `just --list` tells. Each recipe is one call of a
# script or a program of ours. Options go on to it: just setup-volume-download --model owner/name --variant fp16

set positional-arguments

# The folder that becomes the volume, and the launcher image's name: just volume=DIR ..., or these variables.
volume := env_var_or_default("LIMNER_VOLUME_DIR", "volume")
image := env_var_or_default("LIMNER_IMAGE", "limner:volume-launcher")

# Build limner
build:
    script/build

# Run the tests
test *options:
    script/test "$@"

# Download, convert and check models and adapters into the volume's folder
setup-volume-download *options:
    build/limner volume setup --volume "{{volume}}" "$@"

# Upload the folder to the network volume; keys from .env
setup-volume-upload *options:
    build/limner volume upload --volume "{{volume}}" "$@"

# Say what is wrong with the folder, and what to do
check-volume *options:
    build/limner volume check --volume "{{volume}}" "$@"

# Build the launcher image, empty or for one release: just build-volume URL SHA256
build-volume *release:
    deploy/launcher/build "{{image}}" "$@"

# Push the launcher image to its registry
push-volume:
    $(command -v docker || command -v podman) push "{{image}}"
