/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a fuzzer's entry point over the files of the folders and files named on the command line:
 * what the fuzzers found once stays found, with any compiler and in every test run.
 *
 *   replay-TARGET [FILE | FOLDER]...
 */
#include <glib.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned inputs;

static void
replay_file(const char *path)
{
	g_autofree char *data = NULL;
	gsize size = 0;
	g_autoptr(GError) error = NULL;
	if (!g_file_get_contents(path, &data, &size, &error))
		g_error("%s", error->message);
	/* A block of exactly this size: a read past its end is seen. */
	g_autofree uint8_t *exact = g_memdup2(data, size);
	(void)LLVMFuzzerTestOneInput(exact, size);
	inputs++;
	(void)printf("ok %u - %s\n", inputs, path);
}

static void
replay(const char *path)
{
	if (!g_file_test(path, G_FILE_TEST_IS_DIR)) {
		replay_file(path);
		return;
	}
	g_autoptr(GError) error = NULL;
	g_autoptr(GDir) dir = g_dir_open(path, 0, &error);
	if (dir == NULL)
		g_error("%s", error->message);
	const char *name;
	while ((name = g_dir_read_name(dir)) != NULL) {
		g_autofree char *below = g_build_filename(path, name, NULL);
		replay(below);
	}
}

int
main(int argc, char **argv)
{
	static const uint8_t nothing[1];
	(void)LLVMFuzzerTestOneInput(nothing, 0);
	inputs++;
	(void)printf("ok %u - empty input\n", inputs);
	for (int i = 1; i < argc; i++)
		replay(argv[i]);
	(void)printf("1..%u\n", inputs);
	return 0;
}
