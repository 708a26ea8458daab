/* lps.h - `aloop ps PID` and `aloop pstree PID`.
 *
 * SPDX-License-Identifier: MIT */
#ifndef AL_LPS_H
#define AL_LPS_H

#include <stdbool.h>

/* Is it one of these commands? Writes the answer of the process to stdout; the exit status. Needs no Lua. The
 * environment variable ALOOP_PS_TIMEOUT says for how many seconds to wait for a sign of the process; else it is
 * five. */
bool al_ps_is_command(int argc, char **argv);
int al_ps_run(int argc, char **argv);

#endif
