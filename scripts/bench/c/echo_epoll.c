/* echo_epoll.c - the baseline: a plain echo server over level-triggered epoll (epoll_server.h).
 *
 *   echo_epoll [tcp | unix:PATH]       prints its address
 *
 * SPDX-License-Identifier: MIT */
#include "epoll_server.h"

int main(int argc, char **argv) { epoll_serve(argc > 1 ? argv[1] : "tcp", conn_send); }
