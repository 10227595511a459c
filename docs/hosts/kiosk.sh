#!/bin/sh
# Have images answered by a medimg-edge kiosk, with curl: one JSON prediction, or problem, a line.
#     kiosk.sh URL IMAGE...         KIOSK_TOKEN_FILE: a file whose first line is the token
#                                   KIOSK_CA: PEM, the authority of the kiosk's certificate
# Exit 1 where an image has no answer. What the answers mean: docs/kiosk-api.md of medimg-edge.
set -eu

url=${1:?usage: kiosk.sh URL IMAGE...}
shift
[ $# -gt 0 ] || { echo "usage: kiosk.sh URL IMAGE..." >&2; exit 2; }

# The token in a file of its own: the words of a command can be read by every user.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM
: >"$folder/header"
if [ -n "${KIOSK_TOKEN_FILE:-}" ]; then
  printf 'Authorization: Bearer %s\n' "$(head -n 1 "$KIOSK_TOKEN_FILE")" >"$folder/header"
fi

status=0
for image in "$@"; do
  # The same key at each try of an image, so that it is answered once. 503, and a connection that
  # ended, are tried again for a minute.
  key=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  : >"$folder/answer"
  code=$(curl --silent --show-error --noproxy '*' ${KIOSK_CA:+--cacert "$KIOSK_CA"} \
    --header "@$folder/header" --header "Idempotency-Key: $key" \
    --header 'Content-Type: application/octet-stream' --header 'Expect:' \
    --retry 20 --retry-all-errors --retry-max-time 60 --data-binary "@$image" \
    --output "$folder/answer" --write-out '%{http_code}' "${url%/}/v1/predictions") || code=000
  cat "$folder/answer"
  echo
  case $code in
    20?) ;;
    *) status=1 ;;
  esac
done
exit "$status"
