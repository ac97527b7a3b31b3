/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* What the MIME layer needs once per process.  GMime is used for encoded words, quoted-printable
 * and charset names; no GMime type leaves this folder. */

/* Before the first call into this folder and before threads start: main calls it.  Calling it
 * again does nothing. */
void mime_init(void);
