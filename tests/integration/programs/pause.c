/* SPDX-License-Identifier: MIT */
/* The sandbox image's only program: waits for the signal that ends the pod. */
#include <signal.h>
#include <unistd.h>

static void on_term(int sig) {
    (void) sig;
    _exit(0);
}

int main(void) {
    signal(SIGTERM, on_term);
    signal(SIGINT, on_term);
    for (;;)
        pause();
}
