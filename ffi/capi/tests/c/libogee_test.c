/* libogee against a running cluster. scripts/test.d/cluster.sh builds it as C and as C++, and runs it.
 *
 *   libogee_test calls VOLUME OTHER    every call, its errors, many requests at once, threads, a fork
 *   libogee_test load VOLUME SECONDS   writes while others kill nodes; prints the longest wait, reads all back
 *   libogee_test stuck VOLUME          "ready", a line, asks what nobody answers, closes, "ready", a line
 *   libogee_test resize VOLUME         "ready", then waits until the volume has grown
 *
 * It prints what failed and ends with 1 at the first thing that is not as it should be.
 */
#include <ogee.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KIB ((size_t)1024)
#define MIB ((size_t)1024 * 1024)
#define BLOCK ((size_t)OGEE_BLOCK_SIZE)
#define DEPTH 64

#define CHECK(what)                                                                    \
    do {                                                                               \
        if (!(what)) {                                                                 \
            fprintf(stderr, "line %d: not so: %s (%s)\n", __LINE__, #what, ogee_last_error()); \
            exit(1);                                                                   \
        }                                                                              \
    } while (0)

#define OK(call) IS(OGEE_STATUS_OK, call)

#define IS(wanted, call)                                                               \
    do {                                                                               \
        ogee_status found = (call);                                                    \
        if (found != (wanted)) {                                                       \
            fprintf(stderr, "line %d: %s is %s: %s\n", __LINE__, #call,                \
                    ogee_status_name(found), ogee_last_error());                       \
            exit(1);                                                                   \
        }                                                                              \
    } while (0)

/* Fails in that way, and the text has this in it. */
#define SAYS(wanted, part, call)                                                       \
    do {                                                                               \
        IS(wanted, call);                                                              \
        if (strstr(ogee_last_error(), part) == NULL || strstr(ogee_last_error(), "try: ") == NULL) { \
            fprintf(stderr, "line %d: %s says \"%s\", not %s\n", __LINE__, #call, ogee_last_error(), part); \
            exit(1);                                                                   \
        }                                                                              \
    } while (0)

static ogee_client *client;
static ogee_volume *volume;
static ogee_cq *cq;

static double now_ms(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

static char *pages(size_t size)
{
    void *found = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(found != MAP_FAILED);
    return (char *)found;
}

/* Every 8 bytes say where they are and of which round. */
static void fill(char *bytes, size_t length, uint64_t offset, uint64_t round)
{
    size_t at;
    for (at = 0; at < length; at += 8) {
        uint64_t word = (offset + at) * 1000003u + round;
        memcpy(bytes + at, &word, 8);
    }
}

static int is_filled(const char *bytes, size_t length, uint64_t offset, uint64_t round)
{
    size_t at;
    for (at = 0; at < length; at += 8) {
        uint64_t word = (offset + at) * 1000003u + round, found;
        memcpy(&found, bytes + at, 8);
        if (found != word) {
            fprintf(stderr, "at %llu: %llx, not %llx\n", (unsigned long long)(offset + at),
                    (unsigned long long)found, (unsigned long long)word);
            return 0;
        }
    }
    return 1;
}

static int is_zero(const char *bytes, size_t length)
{
    size_t at;
    for (at = 0; at < length; at++)
        if (bytes[at] != 0)
            return 0;
    return 1;
}

static void open_all(const char *name, uint32_t flags, uint64_t io_timeout_ms)
{
    ogee_client_options options;
    ogee_volume_options how;
    memset(&options, 0, sizeof options);
    options.size = sizeof options;
    options.host = "libogee-test";
    OK(ogee_client_open(&options, &client));
    memset(&how, 0, sizeof how);
    how.size = sizeof how;
    how.flags = flags;
    how.depth = DEPTH;
    how.io_timeout_ms = io_timeout_ms;
    OK(ogee_volume_open(client, name, &how, &volume));
    OK(ogee_cq_create(DEPTH, &cq));
}

static void close_all(void)
{
    OK(ogee_cq_destroy(cq));
    OK(ogee_volume_close(volume, OGEE_FOREVER));
    OK(ogee_client_close(client));
}

/* Waits for one completion. */
static ogee_completion next(void)
{
    ogee_completion done;
    size_t count;
    OK(ogee_cq_wait(cq, &done, 1, 60000, &count));
    CHECK(count == 1);
    return done;
}

/* ---- calls ---------------------------------------------------------------------------------- */

static void try_bad_arguments(const char *name)
{
    ogee_client_options options;
    ogee_volume_options how;
    ogee_client *other = NULL;
    ogee_volume *none = NULL;
    ogee_completion done;
    size_t count;
    char bytes[16];

    memset(&options, 0, sizeof options);
    SAYS(OGEE_STATUS_INVALID, "client is NULL", ogee_client_open(&options, NULL));
    SAYS(OGEE_STATUS_INVALID, "sizeof(ogee_client_options)", ogee_client_open(&options, &other));
    options.size = sizeof options;
    options.mds = "nowhere";
    SAYS(OGEE_STATUS_INVALID, "\"nowhere\"", ogee_client_open(&options, &other));
    options.mds = " , ";
    SAYS(OGEE_STATUS_INVALID, "no metadata server", ogee_client_open(&options, &other));
    CHECK(other == NULL);

    SAYS(OGEE_STATUS_BAD_HANDLE, "NULL", ogee_volume_open(NULL, name, NULL, &none));
    SAYS(OGEE_STATUS_INVALID, "name is NULL", ogee_volume_open(client, NULL, NULL, &none));
    SAYS(OGEE_STATUS_NOT_FOUND, "no-such-volume", ogee_volume_open(client, "no-such-volume", NULL, &none));
    memset(&how, 0, sizeof how);
    how.size = sizeof how;
    how.flags = 0x80;
    SAYS(OGEE_STATUS_UNSUPPORTED, "0x80", ogee_volume_open(client, name, &how, &none));
    how.flags = 0;
    how.depth = 1u << 20;
    SAYS(OGEE_STATUS_INVALID, "depth", ogee_volume_open(client, name, &how, &none));
    CHECK(none == NULL);

    /* Foreign handles: of another kind, of our own memory, from nowhere. */
    SAYS(OGEE_STATUS_BAD_HANDLE, "completion queue", ogee_flush((ogee_volume *)cq));
    SAYS(OGEE_STATUS_BAD_HANDLE, "no handle", ogee_flush((ogee_volume *)(void *)bytes));
    SAYS(OGEE_STATUS_BAD_HANDLE, "closed already", ogee_cq_destroy((ogee_cq *)(void *)((char *)cq + (1 << 20))));
    SAYS(OGEE_STATUS_BAD_HANDLE, "client", ogee_client_close((ogee_client *)volume));

    SAYS(OGEE_STATUS_INVALID, "capacity", ogee_cq_create(0, &cq));
    SAYS(OGEE_STATUS_INVALID, "room", ogee_cq_poll(cq, NULL, 1, &count));
    SAYS(OGEE_STATUS_INVALID, "count is NULL", ogee_cq_poll(cq, &done, 1, NULL));
    CHECK(strcmp(ogee_status_name(OGEE_STATUS_FENCED), "FENCED") == 0);
    CHECK(strcmp(ogee_status_name(-1), "UNKNOWN") == 0 && strcmp(ogee_status_name(1000), "UNKNOWN") == 0);
    CHECK(ogee_abi_version() == OGEE_ABI_VERSION && ogee_version()[0] != 0);
}

static void try_requests_one_by_one(void)
{
    ogee_volume_info info;
    uint64_t size;
    char *bytes = pages(4 * MIB), *back = pages(4 * MIB);

    memset(&info, 0, sizeof info);
    info.size = sizeof info;
    OK(ogee_volume_get_info(volume, &info));
    OK(ogee_volume_size(volume, &size));
    CHECK(info.size_bytes == size && info.block_size == BLOCK && info.epoch > 0 && info.flags == 0);

    /* From memory at odd addresses, across chunks of 16 MiB. */
    fill(bytes + 1, 3 * MIB, 15 * MIB, 1);
    OK(ogee_write(volume, 15 * MIB, bytes + 1, 3 * MIB));
    OK(ogee_read(volume, 15 * MIB, back + 3, 3 * MIB));
    CHECK(is_filled(back + 3, 3 * MIB, 15 * MIB, 1));
    OK(ogee_flush(volume));

    OK(ogee_discard(volume, 15 * MIB, MIB));
    OK(ogee_write_zeroes(volume, 17 * MIB, 64 * KIB));
    OK(ogee_read(volume, 15 * MIB, back, 3 * MIB));
    CHECK(is_zero(back, MIB) && is_zero(back + 2 * MIB, 64 * KIB));
    CHECK(is_filled(back + MIB, MIB, 16 * MIB, 1));
    CHECK(is_filled(back + 2 * MIB + 64 * KIB, MIB - 64 * KIB, 17 * MIB + 64 * KIB, 1));

    /* Nothing is a request, too. */
    OK(ogee_read(volume, 0, NULL, 0));
    OK(ogee_write(volume, size, NULL, 0));

    SAYS(OGEE_STATUS_UNALIGNED, "offset 512 is not a multiple of 4096", ogee_read(volume, 512, back, BLOCK));
    SAYS(OGEE_STATUS_UNALIGNED, "length 100 is not a multiple of 4096", ogee_write(volume, 0, bytes, 100));
    SAYS(OGEE_STATUS_UNALIGNED, "length 1", ogee_discard(volume, 0, 1));
    SAYS(OGEE_STATUS_OUT_OF_RANGE, "size", ogee_read(volume, size, back, BLOCK));
    SAYS(OGEE_STATUS_OUT_OF_RANGE, "size", ogee_write(volume, size - BLOCK, bytes, 2 * BLOCK));
    SAYS(OGEE_STATUS_OUT_OF_RANGE, "size", ogee_write_zeroes(volume, UINT64_MAX - BLOCK + 1, BLOCK));
    SAYS(OGEE_STATUS_TOO_LONG, "33558528", ogee_read(volume, 0, back, OGEE_IO_BYTES_MAX + BLOCK));
    SAYS(OGEE_STATUS_INVALID, "buffer is NULL", ogee_read(volume, 0, NULL, BLOCK));
    munmap(bytes, 4 * MIB);
    munmap(back, 4 * MIB);
}

static int is_readable(int descriptor)
{
    struct pollfd polled;
    polled.fd = descriptor;
    polled.events = POLLIN;
    polled.revents = 0;
    return poll(&polled, 1, 0) == 1;
}

static void try_many_at_once(void)
{
    enum { ROUNDS = 6, PIECES = 512 };
    const size_t piece = 16 * KIB, all = PIECES * piece;
    static const size_t lengths[] = {4096, 16384, 8192};
    ogee_completion done[DEPTH];
    ogee_memory *registered, *again;
    ogee_cq *small;
    char *bytes = pages(all), *back = pages(all);
    int descriptor, round;
    size_t count, at, under_way, refused = 0;

    OK(ogee_memory_register(client, bytes, all, &registered));
    OK(ogee_cq_eventfd(cq, &descriptor));
    CHECK(!is_readable(descriptor));
    for (round = 0; round < ROUNDS; round++) {
        size_t submitted = 0;
        int reads = round % 2;
        under_way = 0;
        while (submitted < PIECES || under_way > 0) {
            uint64_t offset = 32 * MIB + submitted * piece;
            size_t length = lengths[submitted % 3];
            char *place = (reads ? back : bytes) + submitted * piece;
            ogee_status status = OGEE_STATUS_AGAIN;
            if (submitted < PIECES) {
                if (!reads) {
                    fill(place, length, offset, (uint64_t)round);
                    status = ogee_submit_write(volume, cq, submitted % 2 ? registered : NULL, offset, place, length, submitted);
                } else {
                    status = ogee_submit_read(volume, cq, NULL, offset, place, length, submitted);
                }
            }
            if (status == OGEE_STATUS_OK) {
                submitted++;
                under_way++;
                continue;
            }
            CHECK(status == OGEE_STATUS_AGAIN);
            refused++;
            /* Through the descriptor, as an event loop does. */
            struct pollfd polled;
            polled.fd = descriptor;
            polled.events = POLLIN;
            CHECK(poll(&polled, 1, 60000) == 1);
            do {
                OK(ogee_cq_poll(cq, done, 7, &count));
                for (at = 0; at < count; at++) {
                    CHECK(done[at].status == OGEE_STATUS_OK && done[at].detail[0] == 0);
                    CHECK(done[at].value == lengths[done[at].user_data % 3]);
                }
                under_way -= count;
            } while (count > 0);
        }
        if (reads)
            for (at = 0; at < PIECES; at++)
                CHECK(is_filled(back + at * piece, lengths[at % 3], 32 * MIB + at * piece, (uint64_t)round - 1));
    }
    CHECK(refused > ROUNDS);
    CHECK(!is_readable(descriptor));

    /* What is wrong with an address is told at once, what the volume finds in the completion. */
    SAYS(OGEE_STATUS_INVALID, "not within", ogee_submit_write(volume, cq, registered, 0, bytes + all - BLOCK, 2 * BLOCK, 1));
    SAYS(OGEE_STATUS_UNALIGNED, "offset 1 ", ogee_submit_write(volume, cq, registered, 1, bytes, BLOCK, 1));
    OK(ogee_submit_read(volume, cq, registered, UINT64_MAX - BLOCK + 1, bytes, BLOCK, 77));
    done[0] = next();
    CHECK(done[0].user_data == 77 && done[0].status == OGEE_STATUS_OUT_OF_RANGE && done[0].value == 0);
    CHECK(strstr(done[0].detail, "try: ") != NULL);

    /* A full queue refuses, and takes again when a completion was taken. */
    OK(ogee_cq_create(2, &small));
    OK(ogee_submit_flush(volume, small, 1));
    OK(ogee_submit_discard(volume, small, 0, BLOCK, 2));
    SAYS(OGEE_STATUS_AGAIN, "takes 2", ogee_submit_flush(volume, small, 3));
    OK(ogee_cq_wait(small, done, 1, OGEE_FOREVER, &count));
    OK(ogee_submit_write_zeroes(volume, small, 0, BLOCK, 3));
    for (under_way = 2; under_way > 0; under_way -= count)
        OK(ogee_cq_wait(small, done, DEPTH, OGEE_FOREVER, &count));
    OK(ogee_cq_wait(small, done, DEPTH, 10, &count));
    CHECK(count == 0);
    OK(ogee_submit_resize_notice(volume, small, UINT64_MAX, 4));
    OK(ogee_cq_wait(small, done, DEPTH, OGEE_FOREVER, &count));
    CHECK(count == 1 && done[0].value > 0);
    OK(ogee_cq_destroy(small));
    SAYS(OGEE_STATUS_BAD_HANDLE, "closed already", ogee_submit_flush(volume, small, 5));

    OK(ogee_memory_register(client, bytes, BLOCK, &again));
    SAYS(OGEE_STATUS_BUSY, "3 volumes and registrations", ogee_client_close(client));
    OK(ogee_memory_unregister(again));
    OK(ogee_memory_unregister(registered));
    SAYS(OGEE_STATUS_BAD_HANDLE, "closed already", ogee_memory_unregister(registered));
    SAYS(OGEE_STATUS_BAD_HANDLE, "registered memory", ogee_submit_write(volume, cq, registered, 0, bytes, BLOCK, 1));
    munmap(bytes, all);
    munmap(back, all);
}

/* Writes of more than 16 KiB leave from the caller's memory; reads are copied once. */
static void try_copies(void)
{
    ogee_volume_stats before, after;
    char *bytes = pages(8 * MIB);
    memset(&before, 0, sizeof before);
    before.size = after.size = sizeof before;
    OK(ogee_volume_get_stats(volume, &before));
    fill(bytes, 8 * MIB, 64 * MIB, 9);
    OK(ogee_write(volume, 64 * MIB, bytes, 8 * MIB));
    OK(ogee_volume_get_stats(volume, &after));
    CHECK(after.writes == before.writes + 1 && after.written_bytes == before.written_bytes + 8 * MIB);
    CHECK(after.bytes_copied == before.bytes_copied);
    CHECK(after.frame_bytes_copied - before.frame_bytes_copied < 64 * KIB);
    memset(bytes, 0, 8 * MIB);
    OK(ogee_read(volume, 64 * MIB, bytes, 8 * MIB));
    CHECK(is_filled(bytes, 8 * MIB, 64 * MIB, 9));
    before = after;
    OK(ogee_volume_get_stats(volume, &after));
    CHECK(after.reads == before.reads + 1 && after.bytes_copied - before.bytes_copied == 8 * MIB);
    munmap(bytes, 8 * MIB);
}

static void *write_and_read(void *number)
{
    enum { ROUNDS = 40 };
    uint64_t base = 96 * MIB + (uint64_t)(size_t)number * MIB;
    char *bytes = pages(64 * KIB), *back = pages(64 * KIB);
    int round;
    for (round = 0; round < ROUNDS; round++) {
        fill(bytes, 64 * KIB, base, (uint64_t)round);
        OK(ogee_write(volume, base, bytes, 64 * KIB));
        OK(ogee_read(volume, base, back, 64 * KIB));
        CHECK(is_filled(back, 64 * KIB, base, (uint64_t)round));
        IS(OGEE_STATUS_UNALIGNED, ogee_read(volume, (uint64_t)(size_t)number + 1, back, BLOCK));
        /* The text is this thread's own. */
        char said[64];
        snprintf(said, sizeof said, "offset %u ", (unsigned)(size_t)number + 1);
        CHECK(strstr(ogee_last_error(), said) != NULL);
    }
    munmap(bytes, 64 * KIB);
    munmap(back, 64 * KIB);
    return NULL;
}

static void try_threads(void)
{
    pthread_t threads[8];
    size_t at;
    for (at = 0; at < 8; at++)
        CHECK(pthread_create(&threads[at], NULL, write_and_read, (void *)at) == 0);
    for (at = 0; at < 8; at++)
        CHECK(pthread_join(threads[at], NULL) == 0);
}

/* A child has none of the threads: its parent's handles are told apart, and it opens its own. */
static void try_fork(const char *other)
{
    int status;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        char bytes[4096];
        uint64_t size;
        SAYS(OGEE_STATUS_FORKED, "before a fork", ogee_read(volume, 0, bytes, sizeof bytes));
        SAYS(OGEE_STATUS_FORKED, "before a fork", ogee_cq_destroy(cq));
        open_all(other, OGEE_READ_ONLY, 0);
        OK(ogee_volume_size(volume, &size));
        OK(ogee_read(volume, 96 * MIB, bytes, sizeof bytes));
        SAYS(OGEE_STATUS_READ_ONLY, "read-only", ogee_write(volume, 0, bytes, sizeof bytes));
        close_all();
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    OK(ogee_flush(volume));
}

/* Another attachment takes the volume: this one is told, and can still be closed. */
static void try_fencing(const char *name)
{
    ogee_volume *taker;
    ogee_status status = OGEE_STATUS_OK;
    char *bytes = pages(BLOCK);
    OK(ogee_volume_open(client, name, NULL, &taker));
    SAYS(OGEE_STATUS_FENCED, "attached elsewhere", ogee_write(volume, 0, bytes, BLOCK));
    OK(ogee_write(taker, 0, bytes, BLOCK));
    status = ogee_volume_close(volume, 1000);
    CHECK(status == OGEE_STATUS_FENCED || status == OGEE_STATUS_REFUSED);
    IS(OGEE_STATUS_BAD_HANDLE, ogee_volume_close(volume, 1000));
    IS(OGEE_STATUS_BAD_HANDLE, ogee_write(volume, 0, bytes, BLOCK));
    volume = taker;
    munmap(bytes, BLOCK);
}

/* Closing waits for what is under way, and each request ends once. */
static void try_closing(void)
{
    ogee_completion done;
    size_t count, ended = 0, at;
    char *bytes = pages(DEPTH / 2 * MIB);
    OK(ogee_submit_resize_notice(volume, cq, 0, 1000));
    done = next();
    OK(ogee_submit_resize_notice(volume, cq, done.value, 1001));
    for (at = 0; at < DEPTH / 2; at++)
        OK(ogee_submit_write(volume, cq, NULL, at * MIB, bytes + at * MIB, MIB, at));
    SAYS(OGEE_STATUS_BUSY, "requests are under way", ogee_cq_destroy(cq));
    OK(ogee_volume_close(volume, OGEE_FOREVER));
    for (;;) {
        OK(ogee_cq_poll(cq, &done, 1, &count));
        if (count == 0)
            break;
        ended++;
        if (done.user_data == 1001)
            CHECK(done.status == OGEE_STATUS_CANCELLED);
        else
            CHECK(done.status == OGEE_STATUS_OK && done.value == MIB);
    }
    CHECK(ended == DEPTH / 2 + 1);
    IS(OGEE_STATUS_BAD_HANDLE, ogee_submit_flush(volume, cq, 1));
    OK(ogee_cq_destroy(cq));
    OK(ogee_client_close(client));
    IS(OGEE_STATUS_BAD_HANDLE, ogee_client_close(client));
    munmap(bytes, DEPTH / 2 * MIB);
}

static void calls(const char *name, const char *other)
{
    open_all(name, 0, 0);
    try_bad_arguments(name);
    try_requests_one_by_one();
    try_many_at_once();
    try_copies();
    try_threads();
    try_fork(other);
    try_fencing(name);
    try_closing();
    printf("all calls\n");
}

/* ---- load ----------------------------------------------------------------------------------- */

static void load(const char *name, double seconds)
{
    enum { PLACES = 1024 };
    const size_t piece = 16 * KIB;
    uint64_t rounds[PLACES];
    double sent[DEPTH], longest = 0, end;
    size_t place_of[DEPTH], free_slots[DEPTH], free_count = DEPTH, at, count, turn = 0;
    unsigned long long writes = 0;
    char *bytes = pages(DEPTH * piece);
    ogee_memory *registered;
    ogee_completion done[DEPTH];

    open_all(name, 0, 0);
    OK(ogee_memory_register(client, bytes, DEPTH * piece, &registered));
    memset(rounds, 0, sizeof rounds);
    for (at = 0; at < DEPTH; at++)
        free_slots[at] = at;
    end = now_ms() + seconds * 1e3;
    while (now_ms() < end || free_count < DEPTH) {
        /* No two under way at one place: PLACES are more than slots, and taken in turn. */
        while (free_count > 0 && now_ms() < end) {
            size_t slot = free_slots[--free_count], place = turn++ % PLACES;
            fill(bytes + slot * piece, piece, place * MIB, ++rounds[place]);
            place_of[slot] = place;
            sent[slot] = now_ms();
            OK(ogee_submit_write(volume, cq, registered, place * MIB, bytes + slot * piece, piece, slot));
        }
        OK(ogee_cq_wait(cq, done, DEPTH, 60000, &count));
        CHECK(count > 0);
        for (at = 0; at < count; at++) {
            size_t slot = (size_t)done[at].user_data;
            double took = now_ms() - sent[slot];
            if (done[at].status != OGEE_STATUS_OK) {
                fprintf(stderr, "a write at %u: %s\n", (unsigned)place_of[slot], done[at].detail);
                exit(1);
            }
            if (took > longest)
                longest = took;
            free_slots[free_count++] = slot;
            writes++;
        }
    }
    for (at = 0; at < PLACES; at++) {
        /* One for each MiB: all copysets have some. */
        CHECK(rounds[at] > 0);
        OK(ogee_read(volume, at * MIB, bytes, piece));
        CHECK(is_filled(bytes, piece, at * MIB, rounds[at]));
    }
    OK(ogee_memory_unregister(registered));
    close_all();
    printf("{\"writes\": %llu, \"wait_max_ms\": %.0f}\n", writes, longest);
}

/* ---- stuck, resize -------------------------------------------------------------------------- */

static void ready(void)
{
    printf("ready\n");
    fflush(stdout);
}

/* Nobody answers: closing ends all the same, and then nothing touches the memory any more. */
static void stuck(const char *name)
{
    enum { PIECES = 32 };
    char line[16], *bytes = pages(PIECES * MIB);
    ogee_memory *registered;
    ogee_completion done[DEPTH];
    ogee_status status;
    size_t count, ended = 0, at;
    double began, took;

    open_all(name, 0, 0);
    OK(ogee_memory_register(client, bytes, PIECES * MIB, &registered));
    ready();
    CHECK(fgets(line, sizeof line, stdin) != NULL);
    for (at = 0; at < PIECES; at++) {
        if (at % 2)
            OK(ogee_submit_read(volume, cq, registered, at * MIB, bytes + at * MIB, MIB, at));
        else
            OK(ogee_submit_write(volume, cq, registered, at * MIB, bytes + at * MIB, MIB, at));
    }
    SAYS(OGEE_STATUS_BUSY, "32 requests", ogee_memory_unregister(registered));
    began = now_ms();
    status = ogee_volume_close(volume, 1500);
    CHECK(status == OGEE_STATUS_TIMED_OUT && strstr(ogee_last_error(), "32 requests") != NULL);
    took = now_ms() - began;
    CHECK(took < 10000);
    while (ended < PIECES) {
        OK(ogee_cq_wait(cq, done, DEPTH, 10000, &count));
        CHECK(count > 0);
        for (at = 0; at < count; at++)
            CHECK(done[at].status == OGEE_STATUS_CANCELLED);
        ended += count;
    }
    OK(ogee_memory_unregister(registered));
    /* Whoever touched it now would be caught. */
    munmap(bytes, PIECES * MIB);
    OK(ogee_cq_destroy(cq));
    printf("closing took %.0f ms\n", took);
    ready();
    CHECK(fgets(line, sizeof line, stdin) != NULL);
    OK(ogee_client_close(client));
}

static void resize(const char *name)
{
    ogee_completion done;
    uint64_t size, grown;
    open_all(name, OGEE_READ_ONLY, 0);
    OK(ogee_volume_size(volume, &size));
    OK(ogee_submit_resize_notice(volume, cq, size, 9));
    ready();
    done = next();
    CHECK(done.user_data == 9 && done.status == OGEE_STATUS_OK && done.value > size);
    OK(ogee_volume_size(volume, &grown));
    CHECK(grown == done.value);
    printf("%llu\n", (unsigned long long)grown);
    close_all();
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "calls") == 0)
        calls(argv[2], argv[3]);
    else if (argc == 4 && strcmp(argv[1], "load") == 0)
        load(argv[2], atof(argv[3]));
    else if (argc == 3 && strcmp(argv[1], "stuck") == 0)
        stuck(argv[2]);
    else if (argc == 3 && strcmp(argv[1], "resize") == 0)
        resize(argv[2]);
    else {
        fprintf(stderr, "usage: libogee_test calls VOLUME OTHER, stuck|resize VOLUME, load VOLUME SECONDS\n");
        return 2;
    }
    return 0;
}
