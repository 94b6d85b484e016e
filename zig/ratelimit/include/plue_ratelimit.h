/*
 * plue_ratelimit: rate limits in memory, the C ABI of libplue_ratelimit.
 *
 * Thread safety: every function may be called from any thread at any time, also while another
 * thread closes the limiter it uses. Checks take one of 64 locks for some tens of nanoseconds;
 * no lock is held while anything of the caller's runs.
 *
 * Errors: a function that cannot do its work refuses the request (false, or a decision of zeroes)
 * and leaves the reason in ratelimit_last_error(), one value per thread. Functions that return
 * int32_t return it too (< 0). Whoever ignores errors lets nobody in.
 *
 * Keys are any bytes, RATELIMIT_MAX_KEY_BYTES at most; the empty key is a key like others. A
 * pointer with a length may be null where the length is 0. Times are milliseconds; windows longer
 * than 2^60 ms are cut to that.
 *
 * fork(): the child has a copy of every private limiter and counts on its own from there; shared
 * limiters stay shared.
 */
#ifndef PLUE_RATELIMIT_H
#define PLUE_RATELIMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- limits ----------------------------------------------------------------------------- */

#define RATELIMIT_MAX_KEY_BYTES 1024
/* Open limiters of a process; keys that a limiter can be asked to hold; processes on one file. */
#define RATELIMIT_MAX_LIMITERS 4096
#define RATELIMIT_MAX_KEYS 67108864
#define RATELIMIT_MAX_PROCESSES 4096
/* max_keys of ratelimit_init. */
#define RATELIMIT_DEFAULT_MAX_KEYS 1000000
/* retry_after_ms when no wait would help. */
#define RATELIMIT_NEVER UINT64_MAX

/* ---- constants -------------------------------------------------------------------------- */

enum ratelimit_algorithm {
    /* The window before this one counts for the part of it that a window ending now covers. */
    RATELIMIT_SLIDING_WINDOW = 0,
    /* Token bucket: a burst of max_requests, then one per window / max_requests. */
    RATELIMIT_GCRA = 1,
    /* A counter per window; a window starts with the key's first request. */
    RATELIMIT_FIXED_WINDOW = 2,
    /* RATELIMIT_SLIDING_WINDOW with the estimate rounded down. */
    RATELIMIT_SLIDING_WINDOW_FLOOR = 3
};

/* For a key that is not in the table when the table holds max_keys live ones. */
enum ratelimit_when_full {
    RATELIMIT_WHEN_FULL_DENY = 0,     /* refuse it */
    RATELIMIT_WHEN_FULL_OVERFLOW = 1, /* all such keys share one count for each rule */
    RATELIMIT_WHEN_FULL_ALLOW = 2     /* let it pass, uncounted */
};

enum ratelimit_error {
    RATELIMIT_OK = 0,

    /* the caller */
    RATELIMIT_ERROR_NULL_POINTER = -1,
    RATELIMIT_ERROR_NO_LIMITER = -2,  /* not initialized, closed, or no handle at all */
    RATELIMIT_ERROR_ZERO_WINDOW = -3,
    RATELIMIT_ERROR_ZERO_COST = -4,
    RATELIMIT_ERROR_KEY_TOO_LONG = -5,
    RATELIMIT_ERROR_OPTIONS = -6,     /* unknown algorithm or policy; max_keys 0 or too large */
    RATELIMIT_ERROR_BATCH_SHAPE = -7, /* lengths or separators do not fit the keys */
    RATELIMIT_ERROR_OUT_OF_MEMORY = -8,
    RATELIMIT_ERROR_TOO_MANY_LIMITERS = -9,

    /* the shared file */
    RATELIMIT_ERROR_SYSTEM = -20,     /* see ratelimit_last_errno() */
    RATELIMIT_ERROR_NOT_A_FILE = -21, /* a directory, device, pipe or symbolic link */
    RATELIMIT_ERROR_NOT_OWNER = -22,  /* the file is another user's */
    RATELIMIT_ERROR_MODE = -23,       /* others may read or write it; 0600 is wanted */
    RATELIMIT_ERROR_FORMAT = -24,     /* of another version, damaged, or something else */
    RATELIMIT_ERROR_SIZE = -25,       /* made for another max_keys */
    RATELIMIT_ERROR_TOO_MANY_PROCESSES = -26,
    RATELIMIT_ERROR_NO_BOOT_ID = -27, /* the system does not say when it was started */
    RATELIMIT_ERROR_IN_USE = -28      /* processes that see another boot id have it open */
};

typedef struct ratelimit_decision {
    uint32_t allowed;    /* 1 or 0 */
    uint32_t limit;
    uint32_t remaining;  /* requests of cost 1 that would pass now */
    uint32_t table_full; /* 1: the key is not in the table and the policy answered */
    /* 0 when allowed. Else the same request passes after that time and not a millisecond earlier,
       unless others are counted meanwhile. RATELIMIT_NEVER when its cost exceeds the limit. With
       table_full it is when room may come free. */
    uint64_t retry_after_ms;
    uint64_t reset_after_ms; /* until the whole limit is available */
} ratelimit_decision;

typedef struct ratelimit_window_counts {
    uint32_t previous;
    uint32_t current;
    uint64_t previous_left_ms; /* until it stops counting; 0 when it is 0 */
    uint64_t current_left_ms;
} ratelimit_window_counts;

typedef struct ratelimit_log_content {
    uint32_t used; /* cost of the calls inside the window */
    uint32_t reserved;
    uint64_t age_ms; /* of the oldest of them */
} ratelimit_log_content;

/* ---- one limiter for the process -------------------------------------------------------- */

/* Makes it, or replaces it and forgets all keys. False for a window of 0. */
bool ratelimit_init(uint32_t max_requests, uint64_t window_ms);
/* True: the request is allowed, and counted. False before init. */
bool ratelimit_check(const char *key);
void ratelimit_reset(const char *key);
/* Removes entries whose windows have passed and returns how many. Checks do the same little by
   little: nobody has to call this. */
uint32_t ratelimit_cleanup(void);
/* Requests that would pass now; counts nothing. */
uint32_t ratelimit_get_remaining(const char *key);
/* Ends it; checks are refused until the next init. */
void ratelimit_destroy(void);
/* Entries held, those not yet cleaned up included. */
uint32_t ratelimit_count(void);

/* ---- limiters by handle ----------------------------------------------------------------- */

/* The handle, or 0 after an error. ratelimit_close() frees it. */
uint32_t ratelimit_create(uint32_t algorithm, uint32_t max_requests, uint64_t window_ms,
                          uint32_t max_keys, uint32_t when_full);
/* A limiter whose table all processes of this host share that open `path`. The file is made, mode
   0600, where there is none; it must be this user's and nobody else's. Limiters with one rule share
   their keys, those with different rules in one file do not meet. */
uint32_t ratelimit_open_shared(const char *path, uint32_t algorithm, uint32_t max_requests,
                               uint64_t window_ms, uint32_t max_keys, uint32_t when_full);
/* False when it is not open. A shared file stays. */
bool ratelimit_close(uint32_t limiter);

/* As ratelimit_check for a request of `cost` >= 1. */
bool ratelimit_check_key(uint32_t limiter, const uint8_t *key, uint32_t key_bytes, uint32_t cost);
/* The same for a key that ends at its NUL, and a cost of 1. */
bool ratelimit_check_text(uint32_t limiter, const char *key);
/* As ratelimit_check_key with the state after it. 0, or an error and a decision of zeroes. */
int32_t ratelimit_hit(uint32_t limiter, const uint8_t *key, uint32_t key_bytes, uint32_t cost,
                      ratelimit_decision *decision);
/* What ratelimit_hit would answer; counts nothing. */
int32_t ratelimit_peek(uint32_t limiter, const uint8_t *key, uint32_t key_bytes, uint32_t cost,
                       ratelimit_decision *decision);
/* Takes back a request that passed just now, where it turns out that it should not count. */
bool ratelimit_refund(uint32_t limiter, const uint8_t *key, uint32_t key_bytes, uint32_t cost);
/* Hit and peek at a time of the caller's, for tests and simulations: do not mix with the others,
   whose times are those of CLOCK_MONOTONIC. */
int32_t ratelimit_hit_at(uint32_t limiter, const uint8_t *key, uint32_t key_bytes, uint32_t cost,
                         uint64_t now_ms, ratelimit_decision *decision);
int32_t ratelimit_peek_at(uint32_t limiter, const uint8_t *key, uint32_t key_bytes, uint32_t cost,
                          uint64_t now_ms, ratelimit_decision *decision);
/* Takes back a request that passed some time ago. `until_ms` is when it stops counting: the time of
   its hit plus reset_after_ms of its decision, or a little earlier. Given back is no more than was
   counted in what still counts: from a fixed window as long as it lasts; from a sliding window's
   count of its own, which may be the one before the current by now; from a bucket what of it had not
   drained when the key's last request came. Of a request with table_full nothing is. */
bool ratelimit_refund_at(uint32_t limiter, const uint8_t *key, uint32_t key_bytes, uint32_t cost,
                         uint64_t until_ms);
/* Checks `count` keys, in order, and writes 1 or 0 for each to `allowed`. The keys follow one
   another in `keys`, with their lengths in `lengths`, or, where that is null, with a NUL between
   two. Returns how many are allowed, or an error: then `allowed` is all 0, though keys before the
   bad one count. */
int32_t ratelimit_check_many(uint32_t limiter, const uint8_t *keys, uint64_t keys_bytes,
                             const uint32_t *lengths, uint32_t count, uint32_t cost,
                             uint8_t *allowed);
/* Forgets one key; every key. */
bool ratelimit_reset_key(uint32_t limiter, const uint8_t *key, uint32_t key_bytes);
bool ratelimit_clear(uint32_t limiter);
/* As ratelimit_cleanup. */
uint32_t ratelimit_sweep(uint32_t limiter);
/* As ratelimit_count. */
uint32_t ratelimit_key_count(uint32_t limiter);
/* Memory held, in bytes. */
uint64_t ratelimit_bytes(uint32_t limiter);

/* ---- with the rule in the call ---------------------------------------------------------- */
/* Keys of each algorithm, and of logs, are apart from each other and from the functions above.
   ratelimit_reset_key forgets a key in all of them. */

int32_t ratelimit_hit_rule(uint32_t limiter, const uint8_t *key, uint32_t key_bytes, uint32_t cost,
                           uint32_t algorithm, uint32_t max_requests, uint64_t window_ms,
                           ratelimit_decision *decision);
int32_t ratelimit_peek_rule(uint32_t limiter, const uint8_t *key, uint32_t key_bytes, uint32_t cost,
                            uint32_t algorithm, uint32_t max_requests, uint64_t window_ms,
                            ratelimit_decision *decision);
/* The counters of a RATELIMIT_SLIDING_WINDOW_FLOOR key. */
int32_t ratelimit_read_window(uint32_t limiter, const uint8_t *key, uint32_t key_bytes,
                              uint64_t window_ms, ratelimit_window_counts *counts);
/* An exact log: true when less than max_requests passed in the window that ends now. Takes an entry
   of the table for every call that passed. */
bool ratelimit_hit_log(uint32_t limiter, const uint8_t *key, uint32_t key_bytes, uint32_t cost,
                       uint32_t max_requests, uint64_t window_ms);
int32_t ratelimit_read_log(uint32_t limiter, const uint8_t *key, uint32_t key_bytes,
                           uint32_t max_requests, uint64_t window_ms,
                           ratelimit_log_content *content);

/* ---- errors ----------------------------------------------------------------------------- */

/* The reason of this thread's last error (enum ratelimit_error), which is then forgotten. */
int32_t ratelimit_last_error(void);
/* errno of the last RATELIMIT_ERROR_SYSTEM. */
int32_t ratelimit_last_errno(void);
/* "key_too_long" and so on; static. */
const char *ratelimit_error_name(int32_t code);
const char *ratelimit_version(void);

#ifdef __cplusplus
}
#endif

#endif
