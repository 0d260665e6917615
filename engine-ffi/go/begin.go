package oncekey

// #include <oncekey.h>
import "C"

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"
	"unsafe"
)

// Begin is the result of [Engine.Begin]: a [*Claim], [*Recorded], [*InFlight], [*Mismatch] or [*Orphan].
type Begin interface {
	isBegin()
}

func (*Claim) isBegin()    {}
func (*Recorded) isBegin() {}
func (*InFlight) isBegin() {}
func (*Mismatch) isBegin() {}
func (*Orphan) isBegin()   {}

// Token is a fencing token, for systems downstream. Of two tokens of one key, the later one is larger,
// compared byte for byte.
type Token [24]byte

// String returns the token as Rust, the logs and the admin handler write it: incarnation, epoch, sequence.
func (t Token) String() string {
	return fmt.Sprintf("%016x-%d-%d", binary.BigEndian.Uint64(t[:8]), binary.BigEndian.Uint64(t[8:16]), binary.BigEndian.Uint64(t[16:]))
}

// Recorded is a completed operation: send its response, do not execute.
type Recorded struct {
	// Response that was given to Complete; nil when it was not kept.
	Response []byte
	// Token of the claim that completed the operation.
	Token Token
	// CompletedAt, in engine time.
	CompletedAt time.Time
	// ExpiresAt is when the record expires and the key is new again, in engine time.
	ExpiresAt time.Time
}

// InFlight is an operation that another caller is executing. Try again later.
type InFlight struct {
	// Attempt number of the running execution, from 1.
	Attempt int
	// RunningFor is how long its owner has been executing.
	RunningFor time.Duration
	// RetryAfter is a hint when to try again, 100 to 500 ms.
	RetryAfter time.Duration
}

// Mismatch is a key that was used before with a different request. Do not execute.
type Mismatch struct {
	// Parts are the labels of the fingerprint parts that differ.
	Parts []string
}

// begin converts an answer of C, and frees the memory and handles that the result does not keep.
func (e *Engine) begin(key Key, answer *C.oncekey_answer) (Begin, error) {
	defer freeData(answer)
	switch answer.outcome {
	case C.ONCEKEY_CLAIMED:
		return e.newClaim(key, answer), nil
	case C.ONCEKEY_REPLAY:
		return &Recorded{
			Response:    data(answer),
			Token:       token(answer.token),
			CompletedAt: unixMilli(answer.since_ms),
			ExpiresAt:   unixMilli(answer.expires_ms),
		}, nil
	case C.ONCEKEY_MISMATCH:
		labels := strings.Split(string(data(answer)), "\x00")
		return &Mismatch{Parts: labels[:len(labels)-1]}, nil
	case C.ONCEKEY_ORPHANED:
		return e.newOrphan(key, answer.orphan, int(answer.attempt), token(answer.token), unixMilli(answer.since_ms)), nil
	case C.ONCEKEY_LOCKED:
		return &InFlight{
			Attempt:    int(answer.attempt),
			RunningFor: time.Duration(answer.running_ms) * time.Millisecond,
			RetryAfter: time.Duration(answer.retry_after_ms) * time.Millisecond,
		}, nil
	default:
		C.oncekey_claim_free(answer.claim)
		C.oncekey_orphan_free(answer.orphan)
		return nil, unknown("outcome", int32(answer.outcome))
	}
}

// freeData frees the bytes of an answer, if it has any.
func freeData(answer *C.oncekey_answer) {
	if answer.data.owner != 0 {
		C.oncekey_buffer_free(&answer.data)
	}
}

// data copies the bytes of an answer; nil when it has none.
func data(answer *C.oncekey_answer) []byte {
	if answer.has_data == 0 {
		return nil
	}
	return copied(answer.data.ptr, answer.data.len)
}

func copied(ptr *C.uint8_t, length C.size_t) []byte {
	bytes := make([]byte, int(length))
	copy(bytes, unsafe.Slice((*byte)(unsafe.Pointer(ptr)), int(length)))
	return bytes
}

func token(from C.oncekey_token) Token {
	return *(*Token)(unsafe.Pointer(&from.bytes))
}

func unixMilli(ms C.uint64_t) time.Time {
	return time.UnixMilli(int64(ms))
}
