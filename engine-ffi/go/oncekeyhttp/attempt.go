package oncekeyhttp

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"sync"
	"time"

	oncekey "github.com/oncekey/oncekey/engine-ffi/go"
	"github.com/oncekey/oncekey/engine-ffi/go/internal/blake3"
)

// Attempt is the execution that a request is part of.
type Attempt struct {
	// Key of the operation, with its scope.
	Key oncekey.Key
	// Number of this attempt, from 1. Above 1, which only [Retry] allows, the earlier attempts may have taken
	// effect in part.
	Number int
	// Token is the fencing token of this execution, for systems downstream.
	Token oncekey.Token
	// Checkpoint is the last one that an earlier attempt saved; nil when there is none.
	Checkpoint []byte

	claim *oncekey.Claim
	outer *Attempt // whose handler made the request

	mu   sync.Mutex
	said said
}

// said holds what the handler declared about its response.
type said struct {
	notExecuted, notStored, outcomeUnknown bool

	ttl time.Duration // 0: the TTL of the middleware
}

type contextKey struct{}

// FromContext returns the attempt of a request that runs under an idempotency key; nil for other requests.
func FromContext(ctx context.Context) *Attempt {
	attempt, _ := ctx.Value(contextKey{}).(*Attempt)
	return attempt
}

// DownstreamKey is an idempotency key for a call to a system downstream, 32 hexadecimal digits. It is the
// same in every attempt of this operation, and in the Rust layer, and differs for each scope, key and step.
// An operation that uses its key again after its record expired gets the same downstream keys. So the system
// downstream must not remember a key for longer than the TTL, or the step must tell the two operations apart.
func (a *Attempt) DownstreamKey(step string) string {
	var parts []byte
	for _, part := range []string{a.Key.Scope, a.Key.Key, step} {
		parts = binary.LittleEndian.AppendUint64(parts, uint64(len(part)))
		parts = append(parts, part...)
	}
	derived := blake3.DeriveKey("oncekey-http downstream idempotency key v1", parts)
	return hex.EncodeToString(derived[:16])
}

// SaveCheckpoint saves a recovery point: if this attempt dies, the attempt that takes over gets the last one
// saved. The checkpoint is durable when the error is nil. The error is oncekey.ErrEnded when the handler has
// answered already.
func (a *Attempt) SaveCheckpoint(ctx context.Context, checkpoint []byte) error {
	return a.claim.SaveCheckpoint(ctx, checkpoint)
}

// NotExecuted declares that nothing happened: the key is freed, and the next request with it runs the
// handler. Call it before the first byte of a response that is sent as it comes. Only the first attempt can
// free a key; a later attempt cannot know what the earlier ones did.
func (a *Attempt) NotExecuted() {
	a.say(func(said *said) { said.notExecuted = true })
}

// NotStored declares that the response is not stored: it is sent as it comes, and a retry gets
// idempotency_response_not_stored. For streams. Call it before the first byte.
func (a *Attempt) NotStored() {
	a.say(func(said *said) { said.notStored = true })
}

// OutcomeUnknown declares that the operation may have happened or not: the response is sent as it comes and
// not stored. The next request with the key gets idempotency_outcome_unknown, or takes the operation over
// ([Retry]). For handlers that pass a request on and lose the answer. Call it before the first byte. It wins
// over NotExecuted, NotStored, and Options.Stored.
func (a *Attempt) OutcomeUnknown() {
	a.say(func(said *said) { said.outcomeUnknown = true })
}

// SetTTL sets how long the response is replayed before its key is new again, instead of Options.TTL. Less
// than a millisecond counts as one. Call it before the handler returns.
func (a *Attempt) SetTTL(ttl time.Duration) {
	a.say(func(said *said) { said.ttl = max(ttl, time.Millisecond) })
}

// isUnder says whether this attempt, or one around it, runs under the key.
func (a *Attempt) isUnder(key oncekey.Key) bool {
	return a != nil && (a.Key == key || a.outer.isUnder(key))
}

func (a *Attempt) say(tell func(*said)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	tell(&a.said)
}

func (a *Attempt) heard() said {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.said
}
