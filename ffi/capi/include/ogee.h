/* libogee: volumes of an Ogee cluster for programs in C, C++, and what calls C. Apache-2.0.
 *
 * Made by cbindgen from ffi/capi: do not edit. docs/client.md has the guide; in short:
 *  - Any thread may call anything. A handle is a number, not an address: one that was closed, or is of
 *    another kind, is told apart (BAD_HANDLE). In a child of fork the parent's handles are FORKED.
 *  - Every call returns a status. After a failure ogee_last_error() says what was wrong and what to try.
 *  - Pointers are yours: a string ends with a zero byte, an array is as long as you say, a struct as long as
 *    its field size says, and a buffer of a submitted request stays as it is until its completion.
 *  - Functions that open something store its handle; what is stored is not touched after a failure.
 */

#ifndef OGEE_H
#define OGEE_H

#include <stddef.h>
#include <stdint.h>

/*
 Version of this interface: major in the upper 16 bits, minor in the lower. A library of the same
 major version and at least this minor version will do: compare with ogee_abi_version().
 */
#define OGEE_ABI_VERSION 1

/*
 Offsets and lengths are multiples of this.
 */
#define OGEE_BLOCK_SIZE 4096

/*
 Bytes of one read or write.
 */
#define OGEE_IO_BYTES_MAX 33554432

/*
 Entries of a completion queue.
 */
#define OGEE_CQ_CAPACITY_MAX 65536

/*
 Requests of a volume that may be under way.
 */
#define OGEE_DEPTH_MAX 1024

/*
 A timeout that never comes.
 */
#define OGEE_FOREVER UINT64_MAX

/*
 Flag of a volume: refuse mutations. Any number may have it open so, but not beside one that writes.
 */
#define OGEE_READ_ONLY 1

/*
 RDMA where the library and the chunkserver have it, else TCP.
 */
#define OGEE_TRANSPORT_AUTO 0

/*
 RDMA, or nothing: a library without it answers UNSUPPORTED.
 */
#define OGEE_TRANSPORT_RDMA 1

/*
 TCP only.
 */
#define OGEE_TRANSPORT_TCP 2

/*
 Bytes of a completion's text.
 */
#define OGEE_DETAIL_SIZE 232

/*
 What a call or a request ended with. Numbers keep their meaning.
 */
enum ogee_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /*
   Done.
   */
  OGEE_STATUS_OK = 0,
  /*
   The queue is full: take completions from it, then submit again.
   */
  OGEE_STATUS_AGAIN = 1,
  /*
   The time limit is over. A mutation may have been applied, or may be later.
   */
  OGEE_STATUS_TIMED_OUT = 2,
  /*
   An argument is wrong: a null pointer, an unknown flag, a struct's size.
   */
  OGEE_STATUS_INVALID = 3,
  /*
   Not a handle of this kind: closed already, never opened, or of another kind.
   */
  OGEE_STATUS_BAD_HANDLE = 4,
  /*
   Offset or length is not a multiple of OGEE_BLOCK_SIZE.
   */
  OGEE_STATUS_UNALIGNED = 5,
  /*
   The request reaches past the end of the volume.
   */
  OGEE_STATUS_OUT_OF_RANGE = 6,
  /*
   More than OGEE_IO_BYTES_MAX bytes.
   */
  OGEE_STATUS_TOO_LONG = 7,
  /*
   A mutation of a volume that was opened read-only.
   */
  OGEE_STATUS_READ_ONLY = 8,
  /*
   The volume or queue was closed meanwhile.
   */
  OGEE_STATUS_CLOSED = 9,
  /*
   Closing did not wait for it any longer. A mutation may have been applied, or may be later.
   */
  OGEE_STATUS_CANCELLED = 10,
  /*
   The volume was attached elsewhere since: nothing works on this attachment any more.
   */
  OGEE_STATUS_FENCED = 11,
  /*
   There is no such volume.
   */
  OGEE_STATUS_NOT_FOUND = 12,
  /*
   The metadata servers refused.
   */
  OGEE_STATUS_REFUSED = 13,
  /*
   No metadata server answered.
   */
  OGEE_STATUS_UNREACHABLE = 14,
  /*
   The data fails its checksum on every replica.
   */
  OGEE_STATUS_CORRUPT = 15,
  /*
   The two sides do not understand each other: versions that do not fit, or a bug.
   */
  OGEE_STATUS_PROTOCOL = 16,
  /*
   The system refused something: io_uring, a thread, memory.
   */
  OGEE_STATUS_SYSTEM = 17,
  /*
   The handle is of the process that this one was forked from: open one here.
   */
  OGEE_STATUS_FORKED = 18,
  /*
   Something of it is still in use.
   */
  OGEE_STATUS_BUSY = 19,
  /*
   The library is older than the header that asks for it.
   */
  OGEE_STATUS_UNSUPPORTED = 20,
  /*
   A limit of this library.
   */
  OGEE_STATUS_LIMIT = 21,
  /*
   A bug in the library.
   */
  OGEE_STATUS_INTERNAL = 22,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum ogee_status ogee_status;
#else
typedef int32_t ogee_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/*
 A cluster: its metadata servers, and a thread for I/O.
 */
typedef struct ogee_client ogee_client;

/*
 A completion queue.
 */
typedef struct ogee_cq ogee_cq;

/*
 Memory of the caller that requests are made on.
 */
typedef struct ogee_memory ogee_memory;

/*
 An attached volume.
 */
typedef struct ogee_volume ogee_volume;

/*
 How to open a client. Set all to zero, then size to sizeof, then what is wanted.
 */
typedef struct ogee_client_options {
  /*
   sizeof(ogee_client_options)
   */
  uint32_t size;
  /*
   0
   */
  uint32_t reserved;
  /*
   Addresses of the metadata servers, HOST:PORT, separated by commas. NULL: the environment's
   OGEE_MDS.
   */
  const char *mds;
  /*
   This host as operators know it. NULL: its name.
   */
  const char *host;
} ogee_client_options;

/*
 How to open a volume. Set all to zero, then size to sizeof, then what is wanted.
 */
typedef struct ogee_volume_options {
  /*
   sizeof(ogee_volume_options)
   */
  uint32_t size;
  /*
   OGEE_READ_ONLY, or 0.
   */
  uint32_t flags;
  /*
   Requests that are under way at a time, at most OGEE_DEPTH_MAX; as many more wait for their turn. 0: 256.
   */
  uint32_t depth;
  /*
   OGEE_TRANSPORT_AUTO, OGEE_TRANSPORT_RDMA or OGEE_TRANSPORT_TCP.
   */
  uint32_t transport;
  /*
   A request that takes longer ends with TIMED_OUT. 0: it waits, as a disk does.
   */
  uint64_t io_timeout_ms;
} ogee_volume_options;

/*
 A volume. Set size to sizeof; what the library does not know stays as it is.
 */
typedef struct ogee_volume_info {
  /*
   sizeof(ogee_volume_info)
   */
  uint32_t size;
  /*
   OGEE_READ_ONLY, or 0.
   */
  uint32_t flags;
  /*
   Its size now, in bytes.
   */
  uint64_t size_bytes;
  /*
   Its number.
   */
  uint64_t id;
  /*
   The attachment's number: grows with each.
   */
  uint64_t epoch;
  /*
   Unit of offsets and lengths, in bytes.
   */
  uint32_t block_size;
  /*
   0
   */
  uint32_t reserved;
} ogee_volume_info;

/*
 Counters of a volume. Set size to sizeof; what the library does not know stays as it is.
 */
typedef struct ogee_volume_stats {
  /*
   sizeof(ogee_volume_stats)
   */
  uint32_t size;
  /*
   0
   */
  uint32_t reserved;
  /*
   Reads that ended.
   */
  uint64_t reads;
  /*
   Writes that ended.
   */
  uint64_t writes;
  /*
   Bytes read.
   */
  uint64_t read_bytes;
  /*
   Bytes written.
   */
  uint64_t written_bytes;
  /*
   Attempts beyond the first.
   */
  uint64_t retries;
  /*
   Payload bytes of this volume copied between buffers and the caller's memory.
   */
  uint64_t bytes_copied;
  /*
   Bytes copied on the way into and out of frames, of all volumes of the client.
   */
  uint64_t frame_bytes_copied;
} ogee_volume_stats;

/*
 The end of a request.
 */
typedef struct ogee_completion {
  /*
   As it was submitted.
   */
  uint64_t user_data;
  /*
   Bytes read, written, discarded or zeroed; of a notice, the new size. 0 after an error.
   */
  uint64_t value;
  /*
   How it ended.
   */
  ogee_status status;
  /*
   0
   */
  uint32_t reserved;
  /*
   After an error, what it was and what to do, ended by a zero byte; else empty.
   */
  char detail[OGEE_DETAIL_SIZE];
} ogee_completion;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 The interface of this library: compare with OGEE_ABI_VERSION, the interface of the header.
 */
uint32_t ogee_abi_version(void);

/*
 The version of this library, such as "0.1.0".
 */
const char *ogee_version(void);

/*
 What the last call on this thread that failed says: what was wrong, and what to try. Valid until the next one
 that fails on this thread; empty if there was none.
 */
const char *ogee_last_error(void);

/*
 The name of a status, such as "AGAIN". It takes any number.
 */
const char *ogee_status_name(int status);

/*
 Has the library write what it does to stderr: slow requests, connections that break, and so on. The filter
 is such as "info" or "ogee_client=debug"; NULL is "warn". Once per process; without it the library writes
 nothing.
 */
ogee_status ogee_log_to_stderr(const char *filter);

/*
 Opens a client: starts its two threads, and does not connect yet. They take no signals.
 */
ogee_status ogee_client_open(const struct ogee_client_options *options,
                             struct ogee_client **client);

/*
 Closes a client: ends its threads. BUSY while volumes of it are open.
 */
ogee_status ogee_client_close(struct ogee_client *client);

/*
 Attaches a volume. To write, it takes the place of another one that writes, which is FENCED from then on; to
 read only, it is REFUSED beside one that writes. Waits for the metadata servers
 (15 s at most) and for the copysets of the volume (6 s at most). Options may be NULL.
 */
ogee_status ogee_volume_open(struct ogee_client *client,
                             const char *name,
                             const struct ogee_volume_options *options,
                             struct ogee_volume **volume);

/*
 Closes a volume: waits for the requests under way, then gives the attachment up. After timeout_ms (never, if
 OGEE_FOREVER) those that have not ended end with CANCELLED, and it returns TIMED_OUT. Telling the metadata
 servers takes as long again at most, or 2 s. Notices of a new size end with CANCELLED. Whatever it returns but
 BAD_HANDLE and FORKED, the volume is closed and all its requests have ended, or will within seconds.
 */
ogee_status ogee_volume_close(struct ogee_volume *volume,
                              uint64_t timeout_ms);

/*
 What a volume is.
 */
ogee_status ogee_volume_get_info(struct ogee_volume *volume, struct ogee_volume_info *info);

/*
 The size of a volume now, in bytes. It grows when an operator resizes it: see ogee_submit_resize_notice.
 */
ogee_status ogee_volume_size(struct ogee_volume *volume,
                             uint64_t *size);

/*
 Counters of a volume.
 */
ogee_status ogee_volume_get_stats(struct ogee_volume *volume, struct ogee_volume_stats *stats);

/*
 Reads length bytes at offset into buffer. Both are multiples of OGEE_BLOCK_SIZE; the buffer may lie anywhere.
 */
ogee_status ogee_read(struct ogee_volume *volume,
                      uint64_t offset,
                      void *buffer,
                      size_t length);

/*
 Writes length bytes of buffer at offset. When it returns OK they are on stable media of a majority.
 */
ogee_status ogee_write(struct ogee_volume *volume,
                       uint64_t offset,
                       const void *buffer,
                       size_t length);

/*
 Gives length bytes at offset back: they read as zeros afterwards.
 */
ogee_status ogee_discard(struct ogee_volume *volume, uint64_t offset, uint64_t length);

/*
 Makes length bytes at offset read as zeros.
 */
ogee_status ogee_write_zeroes(struct ogee_volume *volume, uint64_t offset, uint64_t length);

/*
 Waits until what was written before is durable. It is as soon as its write has ended with OK, so this costs
 next to nothing; it fails when the attachment is over.
 */
ogee_status ogee_flush(struct ogee_volume *volume);

/*
 Makes a completion queue, for volumes of any clients. Requests under way on it and completions that were not
 taken are together at most its capacity; a request beyond that is refused with AGAIN.
 */
ogee_status ogee_cq_create(uint32_t capacity,
                           struct ogee_cq **cq);

/*
 Destroys a completion queue, with the completions on it. BUSY while requests are under way on it. Threads that
 wait on it return CLOSED.
 */
ogee_status ogee_cq_destroy(struct ogee_cq *cq);

/*
 A descriptor for poll, epoll or io_uring: it can be read while completions wait. Take them until there are
 none, then wait on it again; there is no need to read it. It is the queue's, and closed with it.
 */
ogee_status ogee_cq_eventfd(struct ogee_cq *cq,
                            int *descriptor);

/*
 Takes at most capacity completions, and never waits. Their number is stored, and may be 0.
 */
ogee_status ogee_cq_poll(struct ogee_cq *cq,
                         struct ogee_completion *completions,
                         size_t capacity,
                         size_t *count);

/*
 As ogee_cq_poll, and waits for the first one, for timeout_ms at most; a number of 0 means that the time is over.
 */
ogee_status ogee_cq_wait(struct ogee_cq *cq,
                         struct ogee_completion *completions,
                         size_t capacity,
                         uint64_t timeout_ms,
                         size_t *count);

/*
 Registers memory for requests of a client's volumes: to be done once, before I/O, not per request. It must stay
 mapped until ogee_memory_unregister. Over RDMA it is pinned (while I/O goes on, 64 MiB at a time), and requests on
 it are sent from there, and parts of more than 16 KiB read into it, without a copy; what cannot be pinned, for want
 of locked memory, is copied, and the log says so. Over TCP nothing has to be prepared.
 */
ogee_status ogee_memory_register(struct ogee_client *client,
                                 void *start,
                                 size_t length,
                                 struct ogee_memory **memory);

/*
 Ends a registration. BUSY while requests are under way on it.
 */
ogee_status ogee_memory_unregister(struct ogee_memory *memory);

/*
 Reads length bytes at offset into buffer; memory is what buffer is part of, or NULL. OK: there will be one
 completion on cq. Anything else: there will be none. The buffer is the library's until the completion.
 */
ogee_status ogee_submit_read(struct ogee_volume *volume,
                             struct ogee_cq *cq,
                             struct ogee_memory *memory,
                             uint64_t offset,
                             void *buffer,
                             size_t length,
                             uint64_t user_data);

/*
 Writes length bytes of buffer at offset; memory is what buffer is part of, or NULL. The buffer must not change
 until the completion, which waits until nothing of the library refers to it any more.
 */
ogee_status ogee_submit_write(struct ogee_volume *volume,
                              struct ogee_cq *cq,
                              struct ogee_memory *memory,
                              uint64_t offset,
                              const void *buffer,
                              size_t length,
                              uint64_t user_data);

/*
 As ogee_discard.
 */
ogee_status ogee_submit_discard(struct ogee_volume *volume,
                                struct ogee_cq *cq,
                                uint64_t offset,
                                uint64_t length,
                                uint64_t user_data);

/*
 As ogee_write_zeroes.
 */
ogee_status ogee_submit_write_zeroes(struct ogee_volume *volume,
                                     struct ogee_cq *cq,
                                     uint64_t offset,
                                     uint64_t length,
                                     uint64_t user_data);

/*
 As ogee_flush. It speaks for the requests whose completions were there when it was submitted.
 */
ogee_status ogee_submit_flush(struct ogee_volume *volume, struct ogee_cq *cq, uint64_t user_data);

/*
 Ends, once, when the volume's size is not known_size any more: at once if it is not; the new size is the
 completion's value. It ends with CANCELLED when the volume is closed, and keeps nothing else from ending.
 */
ogee_status ogee_submit_resize_notice(struct ogee_volume *volume,
                                      struct ogee_cq *cq,
                                      uint64_t known_size,
                                      uint64_t user_data);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* OGEE_H */
