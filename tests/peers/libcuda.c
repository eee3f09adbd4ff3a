/* The checkpoint calls of NVIDIA's driver, for machines without it: a stand-in for libcuda.so.1.
 * CUDA_STAND_IN names a folder. A process uses CUDA if the folder has a file named by its pid, which
 * holds its state as a digit. The file "history" gets a line for each call that changes a state. If
 * a file such as "checkpoint-fails" exists, that call fails. With "hangs", cuInit never returns. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, INVALID_VALUE = 1, ILLEGAL_STATE = 401, FAILED = 999 };
enum { RUNNING, LOCKED, CHECKPOINTED };

static FILE *file(const char *name, const char *mode)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("CUDA_STAND_IN"), name);
    return fopen(path, mode);
}

static int is_there(const char *name)
{
    FILE *found = file(name, "r");
    if (found)
        fclose(found);
    return found != NULL;
}

int cuInit(unsigned flags)
{
    while (is_there("hangs"))
        pause();
    return is_there("no-gpu") ? 100 : OK;
}

int cuGetErrorName(int error, const char **name)
{
    *name = error == INVALID_VALUE   ? "CUDA_ERROR_INVALID_VALUE"
            : error == ILLEGAL_STATE ? "CUDA_ERROR_ILLEGAL_STATE"
            : error == 100           ? "CUDA_ERROR_NO_DEVICE"
                                     : NULL;
    return *name ? OK : INVALID_VALUE;
}

int cuCheckpointProcessGetState(int pid, int *state)
{
    char name[32];
    snprintf(name, sizeof name, "%d", pid);
    FILE *found = file(name, "r");
    if (!found)
        return INVALID_VALUE;
    *state = fgetc(found) - '0';
    fclose(found);
    return OK;
}

static int step(const char *action, int pid, int from, int to, const unsigned *arguments)
{
    char name[64];
    int state;
    snprintf(name, sizeof name, "%s-fails", action);
    if (is_there(name))
        return FAILED;
    if (cuCheckpointProcessGetState(pid, &state) || state != from)
        return ILLEGAL_STATE;
    snprintf(name, sizeof name, "%d", pid);
    FILE *kept = file(name, "w");
    fputc('0' + to, kept);
    fclose(kept);
    FILE *history = file("history", "a");
    fprintf(history, "%s %d %u\n", action, pid, arguments[0]);
    fclose(history);
    return OK;
}

int cuCheckpointProcessLock(int pid, const unsigned *arguments)
{
    return step("lock", pid, RUNNING, LOCKED, arguments);
}

int cuCheckpointProcessCheckpoint(int pid, const unsigned *arguments)
{
    return step("checkpoint", pid, LOCKED, CHECKPOINTED, arguments);
}

int cuCheckpointProcessRestore(int pid, const unsigned *arguments)
{
    return step("restore", pid, CHECKPOINTED, LOCKED, arguments);
}

int cuCheckpointProcessUnlock(int pid, const unsigned *arguments)
{
    return step("unlock", pid, LOCKED, RUNNING, arguments);
}
