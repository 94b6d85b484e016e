/*
 * plue_jwt: HS256 JSON Web Tokens (RFC 7519, RFC 7515), the C ABI of libplue_jwt.
 *
 * Thread safety: every function may be called from any thread at any time, also while another
 * thread replaces or destroys the secret it uses: a call then works with the old or the new one.
 *
 * Errors: functions that can fail leave the reason (0 after success) in jwt_last_error(), one
 * value per thread. Functions that return int32_t or int64_t also return it: a length or a count
 * (>= 0) or a code (< 0). No argument makes the library crash, as long as each pointer is null or
 * points to what its comment says.
 *
 * Text: `const char *` is NUL-terminated. A pointer with a length may hold any bytes; it may be
 * null where the length is 0. JSON is UTF-8.
 *
 * What verification checks, in this order: size; exactly three segments; header (canonical
 * base64url of one JSON object, "alg" exactly HS256, no "crit", no "b64":false, "kid" and "typ"
 * strings, none of these twice); the signature, in constant time; and only then the payload (one
 * JSON object, valid UTF-8, no registered claim twice) and iat, nbf, exp against the clock. aud,
 * iss and sub are the caller's to compare: a token for another audience passes.
 */
#ifndef PLUE_JWT_H
#define PLUE_JWT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- limits ----------------------------------------------------------------------------- */

/* Longest token that is signed or verified unless the call says otherwise. */
#define JWT_DEFAULT_MAX_TOKEN_BYTES 65536
/* Longest token that options can ask for, and the bound of jwt_jws_sign. */
#define JWT_MAX_TOKEN_BYTES 16777216
/* Longest decoded header. */
#define JWT_MAX_HEADER_BYTES 8192
/* Deepest nesting of arrays and objects, the outermost object included. */
#define JWT_MAX_DEPTH 128
#define JWT_MAX_SECRET_BYTES 1048576
/* RFC 7518, 3.2: shorter secrets work, but whoever creates the key should warn. */
#define JWT_RECOMMENDED_SECRET_BYTES 32
/* Key handles alive at a time; keys tried by one call; tokens in one batch. */
#define JWT_MAX_KEYS 65535
#define JWT_MAX_KEYS_PER_CALL 64
#define JWT_MAX_BATCH 65536
/* Every HS256 token ends in 43 characters of signature; a MAC has 32 bytes. */
#define JWT_MAC_BYTES 32

/* ---- errors ----------------------------------------------------------------------------- */

enum jwt_error {
    JWT_OK = 0,

    /* the caller */
    JWT_ERROR_NULL_POINTER = -1,     /* a required pointer is null */
    JWT_ERROR_NO_SECRET = -2,        /* jwt_init was not called, or jwt_cleanup was */
    JWT_ERROR_EMPTY_SECRET = -3,     /* a secret of 0 bytes */
    JWT_ERROR_SECRET_TOO_LARGE = -4, /* more than JWT_MAX_SECRET_BYTES */
    JWT_ERROR_ASYMMETRIC_KEY = -5,   /* PEM, DER, OpenSSH or JWK text is no HMAC secret */
    JWT_ERROR_UNKNOWN_KEY = -6,      /* a key handle that was destroyed or made up */
    JWT_ERROR_KEY_COUNT = -7,        /* no key, more than JWT_MAX_KEYS_PER_CALL, or table full */
    JWT_ERROR_OUT_OF_MEMORY = -8,
    JWT_ERROR_BUFFER_TOO_SMALL = -9, /* the result does not fit the caller's buffer */
    JWT_ERROR_OPTIONS = -10,         /* an option or argument out of range */

    /* the token as a whole */
    JWT_ERROR_TOO_LARGE = -20, /* longer than the limit; in sign: would become longer */
    JWT_ERROR_SEGMENTS = -21,  /* not exactly three segments separated by dots */

    /* the header */
    JWT_ERROR_HEADER_ENCODING = -30,  /* not canonical base64url without padding, or too long */
    JWT_ERROR_HEADER_JSON = -31,      /* not one JSON object in valid UTF-8, or nested too deep */
    JWT_ERROR_HEADER_DUPLICATE = -32, /* alg, crit, b64, kid or typ given twice */
    JWT_ERROR_ALGORITHM = -33,        /* alg missing, or anything but the string HS256 */
    JWT_ERROR_CRIT = -34,             /* any crit: no extension is understood here */
    JWT_ERROR_B64 = -35,              /* b64 is anything but true (RFC 7797 is not supported) */
    JWT_ERROR_KID = -36,              /* kid is not a string */
    JWT_ERROR_TYP = -37,              /* typ is not a string */

    /* the signature */
    JWT_ERROR_SIGNATURE_ENCODING = -40, /* not canonical base64url without padding */
    JWT_ERROR_SIGNATURE = -41,          /* it matches none of the keys */

    /* the payload; never seen before the signature has matched, save PAYLOAD_ENCODING, which
       says nothing that the token's characters do not say */
    JWT_ERROR_PAYLOAD_ENCODING = -50, /* not canonical base64url without padding */
    JWT_ERROR_PAYLOAD_JSON = -51,     /* not one JSON object in valid UTF-8 */
    JWT_ERROR_PAYLOAD_DEPTH = -52,    /* nested deeper than JWT_MAX_DEPTH */
    JWT_ERROR_DUPLICATE_CLAIM = -53,  /* a registered claim (RFC 7519, 4.1) given twice */
    JWT_ERROR_EXP_TYPE = -54,         /* exp is not a finite number */
    JWT_ERROR_NBF_TYPE = -55,         /* nbf is not a finite number */
    JWT_ERROR_IAT_TYPE = -56,         /* iat is not a finite number */
    JWT_ERROR_EXPIRED = -57,          /* exp <= now - leeway */
    JWT_ERROR_NOT_YET_VALID = -58,    /* nbf > now + leeway */
    JWT_ERROR_ISSUED_IN_FUTURE = -59  /* iat > now + leeway */
};

/* The code of this thread's latest call that could fail; JWT_OK after a success. */
int32_t jwt_last_error(void);

/* The code's name without its prefix in lower case, for example "expired", "signature", "ok";
   "unknown" for any other number. Static text: never freed, valid as long as the library is. */
const char *jwt_error_name(int32_t code);

/* ---- one secret for the whole process --------------------------------------------------- */

/* Copies the secret and atomically replaces an earlier one, which is wiped. False, and the earlier
   secret stays, for null, empty, too large or asymmetric (see JWT_ERROR_ASYMMETRIC_KEY). */
bool jwt_init(const uint8_t *secret, size_t secret_len);

/* A new token with the header {"alg":"HS256","typ":"JWT"} over these very bytes, or null. The
   payload must be what jwt_verify accepts, apart from the clock. The caller frees it: jwt_free. */
char *jwt_sign(const char *payload_json);

/* The payload of a valid token, or null. Checks exp, nbf and iat against the system clock, no
   leeway. The caller frees it: jwt_free. */
char *jwt_verify(const char *token);

/* Frees a result of jwt_sign or jwt_verify, of any thread. Null is a no-op. Leaves the last error
   as it is. */
void jwt_free(void *ptr);

/* Wipes the process-wide secret; key handles stay. Calling it twice is fine. */
void jwt_cleanup(void);

/* ---- key handles ------------------------------------------------------------------------ */

/* Copies a secret, does its key work once and returns a handle, never 0; 0 on failure. Handles
   are numbers, not pointers: one that was destroyed gives JWT_ERROR_UNKNOWN_KEY, not a crash. */
uint32_t jwt_key_create(const uint8_t *secret, size_t secret_len);

/* Wipes the key. False for a handle that is not alive. Calls under way finish with the key. */
bool jwt_key_destroy(uint32_t key);

/* ---- text in, text out: the fewest arguments, nothing to free ---------------------------- */

/* As jwt_sign and jwt_verify, with a key handle. Each result lies in a buffer of the calling thread:
   a token holds until this thread's next jwt_sign_text or jwt_sign, a payload until its next
   jwt_verify_text or jwt_verify. A payload may be signed again, and a token be verified, right where
   they are. Null on failure. */
const char *jwt_sign_text(uint32_t key, const char *payload_json);
const char *jwt_verify_text(uint32_t key, const char *token);

/* ---- bytes in, bytes into the caller's buffer ------------------------------------------- */

/* As above; returns the length written, without a terminator, or a negative code. `out` may not
   overlap the input. Enough room: for sign 81 + (4 * payload_len + 2) / 3 bytes, for verify
   3 * token_len / 4. */
int32_t jwt_sign_into(uint32_t key, const uint8_t *payload, size_t payload_len, uint8_t *out,
                      size_t out_cap);
int32_t jwt_verify_into(uint32_t key, const uint8_t *token, size_t token_len, uint8_t *out,
                        size_t out_cap);

/* ---- verification with options ---------------------------------------------------------- */

#define JWT_CHECK_EXP 1u
#define JWT_CHECK_NBF 2u
#define JWT_CHECK_IAT 4u
#define JWT_CHECK_ALL 7u

/* Stands for the system clock in now_s. */
#define JWT_NOW_SYSTEM INT64_MIN

typedef struct jwt_options {
    int64_t now_s;            /* seconds since 1970, or JWT_NOW_SYSTEM */
    int64_t leeway_s;         /* >= 0, for all three times; in seconds */
    uint32_t checks;          /* JWT_CHECK_*; a claim whose check is off may have any type */
    uint32_t max_token_bytes; /* 0: JWT_DEFAULT_MAX_TOKEN_BYTES; at most JWT_MAX_TOKEN_BYTES */
} jwt_options;

/* Verifies with the first of `key_count` keys whose signature matches. Another key is tried only
   after a signature mismatch, never for an expired or malformed token; each handle must be alive.
   A kid in the header is not looked at: to go by it, read it with jwt_decode_unverified and give the
   one key that it names.
   `options` null: as jwt_verify. Writes the payload to `out` and, unless `key_index` is null, the
   index of the matching key to it (-1 if none; also set when a later check fails, for example an
   expired token). Returns the payload's length or a negative code. */
int32_t jwt_verify_with(const uint8_t *token, size_t token_len, const uint32_t *keys,
                        size_t key_count, const jwt_options *options, uint8_t *out, size_t out_cap,
                        int32_t *key_index);

/* Verifies `count` tokens with one key in one call. `tokens` holds them back to back, `lengths`
   the length of each. The payloads are written back to back to `out`, whose room must be at least
   that of all tokens together; results[i] is the payload's length or a negative code. All are
   measured against one reading of the clock. Returns how many are valid, or a negative code. */
int64_t jwt_verify_batch(uint32_t key, const uint8_t *tokens, const uint32_t *lengths,
                         size_t count, const jwt_options *options, uint8_t *out, size_t out_cap,
                         int32_t *results);

/* ---- the JWS below the JWT (RFC 7515, compact serialization) ----------------------------- */

/* Signs any payload bytes under any header that verification would accept (see the top: one JSON
   object with alg HS256, no crit ...). Nothing is asked of the payload. Returns the token's length
   or a negative code. */
int32_t jwt_jws_sign(uint32_t key, const uint8_t *header, size_t header_len,
                     const uint8_t *payload, size_t payload_len, uint8_t *out, size_t out_cap);

/* As jwt_verify_with, but the payload may be any bytes and no claim is looked at; of the options
   only max_token_bytes counts. */
int32_t jwt_jws_verify(const uint8_t *token, size_t token_len, const uint32_t *keys,
                       size_t key_count, const jwt_options *options, uint8_t *out, size_t out_cap,
                       int32_t *key_index);

#define JWT_PART_HEADER 0u
#define JWT_PART_PAYLOAD 1u

/* Decodes one segment of a token WITHOUT verifying anything: three segments, canonical base64url,
   and for the header one JSON object. For finding a kid and for inspection. Any size up to
   JWT_MAX_TOKEN_BYTES. Returns the length or a negative code. */
int32_t jwt_decode_unverified(const uint8_t *token, size_t token_len, uint32_t part, uint8_t *out,
                              size_t out_cap);

/* HMAC-SHA256 (RFC 2104) of any bytes; `mac` has room for JWT_MAC_BYTES. Compare MACs in constant
   time. */
bool jwt_mac(uint32_t key, const uint8_t *data, size_t data_len, uint8_t *mac);

/* ---- the library ------------------------------------------------------------------------ */

/* "0.1.0". Static text. */
const char *jwt_version(void);

/* How SHA-256 is computed: "sha-ni", "sha2" or "scalar". Static text. */
const char *jwt_cpu_path(void);

/* For tests and benchmarks: one of the names above, or "auto". False if this CPU lacks it. Counts
   for the whole process; results are the same on every path. */
bool jwt_force_cpu_path(const char *name);

#ifdef __cplusplus
}
#endif

#endif
