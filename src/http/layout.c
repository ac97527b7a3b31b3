/* SPDX-License-Identifier: Apache-2.0 */
/* How the lines of a head ended, seen from what is left of them.
 *
 * libmicrohttpd forgives bare line ends, continued lines and NULs, and tells nothing of them.  But
 * it parses a head where it was received: line ends become NULs, and version, names and values are
 * pointers into it.  So between two fields that were sent as they should there are exactly the
 * two bytes of a CRLF; one byte, or a field somewhere else, is one of those faults.  (The front
 * sees the same in the bytes themselves, but only of a connection's first head, and when that comes
 * in one piece.)
 *
 * This is so in the release that is named below; with any other there is no such look. */
#include <string.h>

#include "http/server_int.h"

#define RELEASE "0.9.75"

bool
http_layout_is_known(void)
{
	return strcmp(MHD_get_version(), RELEASE) == 0;
}

void
http_layout_begin(HttpLayout *layout, const char *version)
{
	*layout = (HttpLayout){.end = version + strlen(version), .sound = true};
}

/* Both bytes of a line end. */
static bool
ends_well(const char *end)
{
	return end[0] == '\0' && end[1] == '\0';
}

void
http_layout_add(HttpLayout *layout, const char *name, const char *value, size_t value_len)
{
	if (!layout->sound)
		return;
	/* First where it is: what is elsewhere is not looked at. */
	layout->sound = name == layout->end + 2 && ends_well(layout->end);
	layout->end = value + value_len;
}

/* The last line, and the empty one behind it.  A bare line feed of the last field shows only when
 * something follows the head; the bytes looked at lie in the daemon's memory in any case. */
bool
http_layout_end(const HttpLayout *layout)
{
	return layout->sound && ends_well(layout->end) && ends_well(layout->end + 2);
}
