/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* Certificates made for one run, in a folder of their own. */

typedef struct Certs {
	char *folder;
	char *ca;      /* the authority */
	char *good;    /* for mx.example and 127.0.0.1; certificate and key */
	char *expired; /* likewise, a day too old */
} Certs;

void certs_make(Certs *certs);
void certs_clear(Certs *certs);
