/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What a chain did and why (filter/why.h's JSON) for people, on a screen of 80 columns.  The JSON
 * may come from another process: what is missing is left out. */
#include <jansson.h>
#include <stdio.h>

void why_text(FILE *out, const json_t *why);
void why_text_head(FILE *out, const json_t *why); /* only its first lines: the verdict */
