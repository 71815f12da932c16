/* Reads and writes a volume: one request at a time, then many at once.
 *
 *   cc -o blocks blocks.c $(pkg-config --cflags --libs ogee)
 *   OGEE_MDS=127.0.0.1:7000 ./blocks VOLUME
 *
 * It overwrites the first 16 MiB. docs/client.md explains each step.
 */
#include <ogee.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE ((size_t)64 * 1024)
#define PIECES 256
#define DEPTH 32

static void must(ogee_status status, const char *doing)
{
    if (status != OGEE_STATUS_OK) {
        fprintf(stderr, "%s: %s: %s\n", doing, ogee_status_name(status), ogee_last_error());
        exit(1);
    }
}

/* Takes what has ended, and waits for the first of it. */
static unsigned finish_some(ogee_cq *cq)
{
    ogee_completion done[DEPTH];
    size_t count, at;
    must(ogee_cq_wait(cq, done, DEPTH, OGEE_FOREVER, &count), "wait");
    for (at = 0; at < count; at++) {
        if (done[at].status != OGEE_STATUS_OK) {
            fprintf(stderr, "piece %u: %s\n", (unsigned)done[at].user_data, done[at].detail);
            exit(1);
        }
    }
    return (unsigned)count;
}

int main(int argc, char **argv)
{
    ogee_client_options options;
    ogee_client *client;
    ogee_volume *volume;
    ogee_cq *cq;
    ogee_memory *registered;
    ogee_volume_stats before, after;
    char *memory, *copy;
    unsigned next = 0, under_way = 0;
    uint64_t size;

    if (argc != 2) {
        fprintf(stderr, "usage: blocks VOLUME\n");
        return 2;
    }
    if (ogee_abi_version() >> 16 != OGEE_ABI_VERSION >> 16) {
        fprintf(stderr, "libogee %s does not fit this program: build it again\n", ogee_version());
        return 1;
    }

    /* The metadata servers come from OGEE_MDS. */
    memset(&options, 0, sizeof options);
    options.size = sizeof options;
    must(ogee_client_open(&options, &client), "open the client");
    must(ogee_volume_open(client, argv[1], NULL, &volume), "attach the volume");
    must(ogee_volume_size(volume, &size), "ask for its size");
    printf("%s has %llu bytes\n", argv[1], (unsigned long long)size);

    /* Blocks of 4 KiB; page-aligned memory is best for what is to come. */
    memory = (char *)aligned_alloc(OGEE_BLOCK_SIZE, PIECE * (PIECES + 1));
    if (memory == NULL)
        return 1;
    copy = memory + PIECE * PIECES;

    /* One at a time: durable on a majority when it returns. */
    memset(copy, 'a', PIECE);
    must(ogee_write(volume, 0, copy, PIECE), "write");
    memset(copy, 0, PIECE);
    must(ogee_read(volume, 0, copy, PIECE), "read");
    if (copy[0] != 'a' || copy[PIECE - 1] != 'a')
        return 1;

    /* Many at once: at most DEPTH, each on a part of memory that was registered before. */
    must(ogee_cq_create(DEPTH, &cq), "make a completion queue");
    must(ogee_memory_register(client, memory, PIECE * (PIECES + 1), &registered), "register memory");
    before.size = after.size = sizeof before;
    must(ogee_volume_get_stats(volume, &before), "ask what it has counted");
    while (next < PIECES || under_way > 0) {
        if (next < PIECES && under_way < DEPTH) {
            char *piece = memory + next * PIECE;
            memset(piece, (int)(next % 251), PIECE);
            must(ogee_submit_write(volume, cq, registered, next * PIECE, piece, PIECE, next), "submit");
            next++;
            under_way++;
        } else {
            under_way -= finish_some(cq);
        }
    }
    for (next = 0; next < PIECES; next++) {
        must(ogee_read(volume, next * PIECE, copy, PIECE), "read");
        if (memcmp(copy, memory + next * PIECE, PIECE) != 0) {
            fprintf(stderr, "piece %u is not what was written\n", next);
            return 1;
        }
    }
    printf("wrote and read %u pieces of %u bytes\n", next, (unsigned)PIECE);
    /* Over RDMA none of them, since they are sent from there, and read into it. */
    must(ogee_volume_get_stats(volume, &after), "ask what it has counted");
    printf("copied %llu bytes\n", (unsigned long long)(after.bytes_copied - before.bytes_copied + after.frame_bytes_copied - before.frame_bytes_copied));

    must(ogee_memory_unregister(registered), "unregister memory");
    must(ogee_cq_destroy(cq), "destroy the completion queue");
    must(ogee_volume_close(volume, OGEE_FOREVER), "detach the volume");
    must(ogee_client_close(client), "close the client");
    free(memory);
    return 0;
}
