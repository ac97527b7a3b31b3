/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The files of config/local-test, built into the program: what `koukan serve` runs without
 * arguments.  Made at build time by tools/embed.py. */
extern const char local_test_gateway_yaml[];
extern const char local_test_router_yaml[];
