/* SPDX-License-Identifier: Apache-2.0 */
#include "mime/mime.h"

#include <gmime/gmime.h>
#include <stdbool.h>

void
mime_init(void)
{
	static bool done;
	if (done)
		return;
	done = true;
	g_mime_init();
}
