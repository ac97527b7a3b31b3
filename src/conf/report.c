/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <string.h>

#include "conf/schema.h"

static void
problem_free(void *data)
{
	ConfProblem *problem = data;
	g_free(problem->where);
	g_free(problem->text);
	g_free(problem);
}

ConfReport *
conf_report_new(void)
{
	ConfReport *report = g_new0(ConfReport, 1);
	report->problems = g_ptr_array_new_with_free_func(problem_free);
	return report;
}

void
conf_report_free(ConfReport *report)
{
	if (report == NULL)
		return;
	g_ptr_array_unref(report->problems);
	g_free(report->fallback);
	g_free(report);
}

/* Takes `where` and `text`. */
static ConfProblem *
problem_add(ConfReport *report, ConfSeverity severity, char *where, char *text)
{
	ConfProblem *problem = g_new0(ConfProblem, 1);
	problem->severity = severity;
	problem->where = where;
	problem->text = text;
	g_ptr_array_add(report->problems, problem);
	if (severity == CONF_ERROR)
		report->errors++;
	return problem;
}

static void
report_add(ConfReport *report, ConfSeverity severity, const YamlNode *node, char *text)
{
	const char *where = report->fallback != NULL ? report->fallback : "-";
	ConfProblem *problem = problem_add(report, severity,
					   g_strdup(node != NULL ? yaml_where(node) : where), text);
	problem->line = yaml_line(node);
	problem->column = yaml_column(node);
}

void
conf_error_placed(ConfReport *report, const char *name, const char *message)
{
	size_t len = g_str_has_prefix(message, name) ? strlen(name) : 0;
	size_t end = len;
	while (message[end] == ':' && g_ascii_isdigit(message[end + 1]))
		end += 1 + strspn(message + end + 1, "0123456789");
	if (len == 0 || message[end] != ':' || message[end + 1] != ' ') {
		problem_add(report, CONF_ERROR, g_strdup(name), g_strdup(message));
		return;
	}
	problem_add(report, CONF_ERROR, g_strndup(message, end), g_strdup(message + end + 2));
}

void
conf_error(ConfReport *report, const YamlNode *node, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	report_add(report, CONF_ERROR, node, g_strdup_vprintf(format, args));
	va_end(args);
}

void
conf_warning(ConfReport *report, const YamlNode *node, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	report_add(report, CONF_WARNING, node, g_strdup_vprintf(format, args));
	va_end(args);
}

static int
by_place(const void *a, const void *b)
{
	const ConfProblem *left = *(ConfProblem *const *)a;
	const ConfProblem *right = *(ConfProblem *const *)b;
	if (left->line != right->line)
		return left->line < right->line ? -1 : 1;
	if (left->column != right->column)
		return left->column < right->column ? -1 : 1;
	return 0;
}

void
conf_report_sort(ConfReport *report)
{
	g_ptr_array_sort(report->problems, by_place); /* stable */
}

void
conf_report_move(ConfReport *to, ConfReport *from, bool demote)
{
	for (unsigned i = 0; i < from->problems->len; i++) {
		ConfProblem *problem = from->problems->pdata[i];
		if (demote)
			problem->severity = CONF_WARNING;
		if (problem->severity == CONF_ERROR)
			to->errors++;
		g_ptr_array_add(to->problems, problem);
		from->problems->pdata[i] = NULL;
	}
	g_ptr_array_set_free_func(from->problems, NULL);
	g_ptr_array_set_size(from->problems, 0);
	g_ptr_array_set_free_func(from->problems, problem_free);
	from->errors = 0;
}

void
conf_report_format(const ConfReport *report, GString *out)
{
	for (unsigned i = 0; i < report->problems->len; i++) {
		const ConfProblem *problem = report->problems->pdata[i];
		g_string_append_printf(out, "%s: %s: %s\n", problem->where,
				       problem->severity == CONF_ERROR ? "error" : "warning",
				       problem->text);
	}
}
