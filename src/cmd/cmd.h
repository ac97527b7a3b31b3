/* SPDX-License-Identifier: Apache-2.0 */
#pragma once
/* The verbs of the command line: one function each, called by main with argv[0] = the verb.  They
 * return the exit code: 0 success, 1 failure, 2 wrong usage (told on standard error). */

int cmd_serve(int argc, char **argv);
int cmd_gateway(int argc, char **argv);
int cmd_router(int argc, char **argv);
int cmd_smtp(int argc, char **argv);
int cmd_sink(int argc, char **argv);
int cmd_send(int argc, char **argv);
int cmd_receiver(int argc, char **argv);
int cmd_config(int argc, char **argv);
int cmd_explain(int argc, char **argv);
int cmd_queue(int argc, char **argv);
int cmd_store(int argc, char **argv);
int cmd_secret(int argc, char **argv);
int cmd_spf(int argc, char **argv);
int cmd_arc(int argc, char **argv);
int cmd_dkim(int argc, char **argv);
int cmd_resolve(int argc, char **argv);
