#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the gateway of the local test set-up: a program of this tree when one is built, else the
# installed one.  KOUKAN names another.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
if [ -z "${KOUKAN:-}" ]; then
	KOUKAN=koukan
	for dir in "$root/build/release" "$root/build" "$root"/build/* "$root"/build-*; do
		if [ -f "$dir/koukan" ] && [ -x "$dir/koukan" ]; then
			KOUKAN=$dir/koukan
			break
		fi
	done
fi
exec "$KOUKAN" gateway "$@" "$here/gateway.yaml"
