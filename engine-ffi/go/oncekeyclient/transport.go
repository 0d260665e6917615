// Package oncekeyclient sends requests that carry an idempotency key until they are settled. Each try sends
// the same key and the same bytes, and no try follows a final answer. The rules are those of docs/clients.md.
// The package needs only the standard library, and no cgo.
package oncekeyclient

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand"
	"net/http"
	"time"
)

// Transport is an [http.RoundTripper] that repeats requests with an Idempotency-Key.
//
// It never makes a key and never replaces one. The key belongs to the operation: the caller stores it with
// the operation before the first try, and sets the header ([NewKey] makes a key). A request without a key
// passes through once. A Transport is safe for concurrent use when Base is.
//
// An answer is read completely before it is returned, so a broken answer leads to another try. A request that
// is not settled fails with a [*Stopped].
//
// A Timeout of the [http.Client] around it covers all tries; leave it zero, or above Policy.Deadline.
type Transport struct {
	// Base sends each try; nil is [http.DefaultTransport].
	Base http.RoundTripper
	// Policy says when to stop; zero fields take the values of [DefaultPolicy].
	Policy Policy
	// Now and Sleep are the clock, for tests; nil means the real clock.
	Now   func() time.Time
	Sleep func(context.Context, time.Duration) error
}

// Policy says when to stop and how long to wait.
type Policy struct {
	Tries      int           // the number of unsettled tries, not counting "locked"
	Deadline   time.Duration // for all tries and waits
	TryTimeout time.Duration // for one try, its whole answer included
	Backoff    time.Duration // the first wait is below it, each later one below twice as much
	MaxBackoff time.Duration // the largest bound of such a wait
	MaxWait    time.Duration // the longest wait that a server can ask for
	Header     string        // carries the key
	Replayed   string        // is "true" in a replay, where the server marks them
}

// DefaultPolicy is the policy of docs/clients.md.
var DefaultPolicy = Policy{
	Tries: 5, Deadline: time.Minute, TryTimeout: 35 * time.Second, // the server answers within 30 s
	Backoff: 100 * time.Millisecond, MaxBackoff: 5 * time.Second, MaxWait: 30 * time.Second,
	Header: "Idempotency-Key", Replayed: "Idempotent-Replayed",
}

// Stopped is the error of a request without a final answer: get it with [errors.As].
type Stopped struct {
	Why    Why
	Key    string
	Tries  int
	Status int // of the last answer; 0 when there was none
	Header http.Header
	Body   []byte
	Err    error // of the last try, when it got no answer
}

func (s *Stopped) Error() string {
	return fmt.Sprintf("oncekey: %s after %d tries, last status %d", s.Why, s.Tries, s.Status)
}

// Unwrap returns the error of the last try, if that try got no answer.
func (s *Stopped) Unwrap() error { return s.Err }

// ErrStream refuses a body that cannot be sent twice.
var ErrStream = errors.New("oncekey: the body is a stream (GetBody is nil); give bytes.NewReader or set GetBody")

// RoundTrip implements [http.RoundTripper].
func (t *Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	policy := t.Policy.orDefault()
	key := request.Header.Get(policy.Header)
	if key == "" {
		return t.base().RoundTrip(request)
	}
	hasBody := request.Body != nil && request.Body != http.NoBody
	if hasBody {
		defer request.Body.Close()
		if request.GetBody == nil {
			return nil, ErrStream
		}
	}
	start, failed := t.now(), 0
	for tries := 1; ; tries++ {
		response, body, err := t.try(request, hasBody, policy.TryTimeout)
		if cancelled := request.Context().Err(); err != nil && cancelled != nil {
			return nil, cancelled
		}
		why, wait := decide(response, body, policy)
		if why == done {
			return response, nil
		}
		if why == again {
			failed++
		}
		if (why == again || why == locked) && failed < policy.Tries {
			pause := policy.pause(wait, tries)
			if t.now().Sub(start)+pause <= policy.Deadline {
				if err := t.sleep(request.Context(), pause); err != nil {
					return nil, err
				}
				continue
			}
		}
		stopped := &Stopped{Why: why.public(), Key: key, Tries: tries, Body: body, Err: err}
		if response != nil {
			stopped.Status, stopped.Header = response.StatusCode, response.Header
		}
		return nil, stopped
	}
}

// try sends the request once and reads the whole answer.
func (t *Transport) try(request *http.Request, hasBody bool, timeout time.Duration) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeout(request.Context(), timeout)
	defer cancel()
	copied := request.Clone(ctx)
	if hasBody {
		body, err := request.GetBody()
		if err != nil {
			return nil, nil, err
		}
		copied.Body = body
	}
	response, err := t.base().RoundTrip(copied)
	if err != nil {
		return nil, nil, err
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil {
		return nil, nil, err
	}
	response.Body, response.Request = io.NopCloser(bytes.NewReader(body)), request
	return response, body, nil
}

func (t *Transport) base() http.RoundTripper {
	if t.Base == nil {
		return http.DefaultTransport
	}
	return t.Base
}

func (t *Transport) now() time.Time {
	if t.Now == nil {
		return time.Now()
	}
	return t.Now()
}

func (t *Transport) sleep(ctx context.Context, pause time.Duration) error {
	if t.Sleep != nil {
		return t.Sleep(ctx, pause)
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pause is the wait before the next try: the wait that the server asked for, or none if asked is below zero,
// plus jitter.
func (p Policy) pause(asked time.Duration, tries int) time.Duration {
	ceiling := p.Backoff
	for n := 1; asked < 0 && n < tries && ceiling < p.MaxBackoff; n++ {
		ceiling *= 2
	}
	return min(max(asked, 0), p.MaxWait) + time.Duration(mathrand.Int63n(int64(min(ceiling, p.MaxBackoff))))
}

func (p Policy) orDefault() Policy {
	d := DefaultPolicy
	or(&p.Tries, d.Tries)
	or(&p.Deadline, d.Deadline)
	or(&p.TryTimeout, d.TryTimeout)
	or(&p.Backoff, d.Backoff)
	or(&p.MaxBackoff, d.MaxBackoff)
	or(&p.MaxWait, d.MaxWait)
	or(&p.Header, d.Header)
	or(&p.Replayed, d.Replayed)
	return p
}

func or[T comparable](value *T, fallback T) {
	var zero T
	if *value == zero {
		*value = fallback
	}
}

// NewKey makes a key: a UUID, version 7. Store it with the operation before the first try.
func NewKey() string {
	var id [16]byte
	binary.BigEndian.PutUint64(id[:8], uint64(time.Now().UnixMilli())<<16)
	if _, err := rand.Read(id[6:]); err != nil {
		panic(err) // the system has no randomness
	}
	id[6], id[8] = 0x70|id[6]&0x0f, 0x80|id[8]&0x3f
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}
