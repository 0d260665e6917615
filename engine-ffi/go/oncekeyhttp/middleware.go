// Package oncekeyhttp is idempotency-key middleware for net/http: a request that is sent twice with the
// same key runs once, and the second caller gets the first response, across retries, concurrent
// duplicates, crashes and power loss.
//
//	middleware := oncekeyhttp.New(engine, oncekeyhttp.Options{})
//	http.ListenAndServe("127.0.0.1:8080", middleware.Wrap(orders))
//
// # What a client gets
//
// A request takes part when its method is not safe (GET, HEAD, OPTIONS, TRACE pass through, and the tunnels
// of CONNECT) and it carries the header X-Idempotency-Key or Idempotency-Key, 1 to 255 bytes without control
// characters.
//
//   - First request with a key: the handler runs; its response is stored before its first byte is sent.
//   - Identical retry: the stored response, same status, headers and body; the handler does not run.
//   - Duplicate while the first runs: 409 idempotency_key_locked, Retry-After: 1, retryAfterMs of 100 to 500.
//   - Same key, another request: 409 idempotency_key_mismatch; parts names what differs.
//   - An earlier attempt died: 409 idempotency_outcome_unknown, or see [Retry].
//   - Key malformed, or sent twice, under one name or both: 400 idempotency_key_invalid.
//   - Key missing where it is required: 400 idempotency_key_missing; else the request passes through.
//   - Request body over the limit: 413 idempotency_body_too_large; broken off: 400
//     idempotency_body_unreadable; nothing of it came for 30 s: 408 idempotency_body_timeout. The key is unused.
//   - All request bodies together over their limit: 503 idempotency_overloaded, Retry-After: 1. The key is
//     unused.
//   - Store unavailable: 503 idempotency_store_unavailable, the handler does not run.
//   - Response too large or streaming, on a retry: 409 idempotency_response_not_stored.
//
// Refusals are application/problem+json (RFC 9457) with the code in the member code. Codes, fingerprints
// and stored bytes are those of the Rust layer oncekey-http: a store that one of them wrote serves the
// other. A [Contract] changes names, statuses and the form of refusals; [IETF] and [Stripe] are presets.
//
// # What a handler should know
//
//   - Every response is stored, 5xx too, because the handler may have acted before it failed. Only 401,
//     425, 429 and [Attempt.NotExecuted] free the key, or what Options.Stored says.
//   - [FromContext] gives the [Attempt] that a request is part of.
//   - A request that a handler makes under another key is an operation of its own. When several middlewares
//     are around one request, the outermost holds its key, and the inner ones let the request pass.
//   - The middleware calls the handler itself, so a claimed request always starts it. A load shedder inside
//     of the middleware that refuses before the handler must call [Attempt.NotExecuted]: otherwise its refusal
//     counts as an answer of the handler.
//   - A client that disconnects does not end the context of the request: the response is stored for the
//     retry.
//   - Headers that handlers outside of the middleware set are not stored; each of them sets its own on a
//     replay, too.
//   - A panic continues to the server, and leaves the outcome unknown. So does a response that is not as
//     long as its Content-Length, and the server closes the connection.
//   - Informational responses (1xx) are passed on at once; they are not stored.
//   - The response is held back until the handler returns, and flushing does nothing. Three kinds of
//     responses are sent as they come, and their operation is completed without a response: one whose length
//     is over the limit, a stream (text/event-stream, multipart/x-mixed-replace, gRPC from its second message
//     on, a hijacked connection), and one after [Attempt.NotStored].
//   - [http.ResponseController] reaches the connection: its deadlines and full duplex are those of the server.
//
// When a response cannot be stored because the store failed, the client still gets the response, and the
// failure is logged and counted.
package oncekeyhttp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	oncekey "github.com/oncekey/oncekey/engine-ffi/go"
)

// Recovery is the treatment of a request whose key belongs to an attempt that ended with an unknown outcome.
type Recovery int

const (
	// Hold refuses it with 409 idempotency_outcome_unknown, until an operator resolves the orphan or it
	// expires. The handler runs at most once.
	Hold Recovery = iota
	// Retry takes over the operation and runs the handler again. The handler learns from its [Attempt] that it
	// is not the first. The handler runs at least once: use this for handlers that can find out what an earlier
	// attempt did.
	Retry
)

// Options of a middleware. Zero values mean the defaults.
type Options struct {
	// Contract is the contract that clients see. Default: the header X-Idempotency-Key or Idempotency-Key, its
	// value verbatim, and 409 for every conflict.
	Contract Contract
	// Required refuses a request without a key when its method takes part.
	Required bool
	// Recovery is the treatment of operations whose outcome is unknown. Default Hold.
	Recovery Recovery
	// Wait is how long a duplicate waits for the response of the first request before it is refused with
	// idempotency_key_locked. Default 0: it is refused at once. Each waiter holds a connection and one of the
	// engine's MaxWaiters.
	Wait time.Duration
	// TTL is how long a response is replayed before its key is new again, counted from its completion; at least
	// a millisecond. Default the engine's TTL, which also applies to orphans. See [Attempt.SetTTL].
	TTL time.Duration
	// Stored says which responses are stored. Default EveryResponse.
	Stored Stored
	// DropHeaders are response headers that are sent once and not stored, so that a replay lacks them:
	// Set-Cookie, for example, or the id of a trace. Default none. Date and the headers of one connection are
	// never stored.
	DropHeaders []string
	// FingerprintHeaders are the headers that tell requests apart, besides method, target, authority and body;
	// at most 60. nil: Authorization, Content-Encoding, Content-Type, If-Match, If-None-Match,
	// If-Unmodified-Since, X-API-Key and X-HTTP-Method-Override.
	FingerprintHeaders []string
	// Scope returns the party that a key belongs to, at most 255 bytes. Authenticate outside of the middleware,
	// and take the scope from the result, not from a claim of the client. Default: one scope for all.
	Scope func(*http.Request) string
	// MaxRequestBody is the longest body of a request with a key, in bytes. Default 2 MiB.
	MaxRequestBody int64
	// MaxBuffered is the most memory that the bodies of all requests with a key hold together, in bytes,
	// until their handlers return. Default 256 MiB.
	MaxBuffered int64
	// BodyIdle is how long a request with a key may send nothing of its body. Default 30 s. It needs a
	// ResponseWriter whose read deadline [http.ResponseController] can set, such as the server's. The
	// ReadTimeout of the server applies as well.
	BodyIdle time.Duration
	// MaxResponse is the longest response that is stored, in bytes with status and headers. Default 1 MiB. The
	// engine's MaxResponse is a separate limit: raise both.
	MaxResponse int
	// Logger gets the failures that no client sees. Default slog.Default().
	Logger *slog.Logger
}

// Stats are the counts that only the middleware can make.
type Stats struct {
	// Running handlers, including the storing of their responses.
	Running int64
	// Requests refused because of their key, and because of their body: too long, broken off, stalled.
	KeyRefused, BodyRefused int64
	// Requests refused because all bodies together held MaxBuffered.
	BodyOverloaded int64
	// BufferedBytes that the bodies of requests with a key hold now, at most MaxBuffered.
	BufferedBytes int64
	// Requests refused because the store was unavailable.
	StoreUnavailable int64
	// Responses that were sent although the store failed to record them.
	CompleteFailed int64
	// Operations completed without a response to replay, and keys freed because nothing had happened.
	NotStored, NotExecuted int64
	// Executions that ended with an unknown outcome.
	Abandoned int64
	// Stored responses that could not be decoded.
	Undecodable int64
	// Requests with a key and a cookie, while there is no Scope: two users that send the same key and body
	// share a response. The first one is logged.
	UnscopedCookies int64
}

type counters struct {
	running, keyRefused, bodyRefused, storeUnavailable, completeFailed atomic.Int64
	notStored, notExecuted, abandoned, undecodable, unscopedCookies    atomic.Int64
	bodyOverloaded                                                     atomic.Int64
}

// Middleware gives handlers idempotency keys. Several, for example for routes with other options, may share
// one engine.
type Middleware struct {
	engine   *oncekey.Engine
	options  Options
	headers  []fingerprinted
	dropped  []string // response headers, in lower case
	bodies   budget
	counters counters
}

// New makes a middleware on an engine. It panics with more than 60 FingerprintHeaders, with a status in the
// contract that no refusal can have, with a negative limit or time, and with a TTL below a millisecond.
func New(engine *oncekey.Engine, options Options) *Middleware {
	options.check()
	options.Contract = options.Contract.filled()
	if options.Stored.frees == nil {
		options.Stored = EveryResponse
	}
	dropped := make([]string, len(options.DropHeaders))
	for i, name := range options.DropHeaders {
		dropped[i] = strings.ToLower(name)
	}
	if options.FingerprintHeaders == nil {
		options.FingerprintHeaders = defaultHeaders
	}
	if options.MaxRequestBody == 0 {
		options.MaxRequestBody = 2 << 20
	}
	if options.MaxBuffered == 0 {
		options.MaxBuffered = 256 << 20
	}
	if options.BodyIdle == 0 {
		options.BodyIdle = 30 * time.Second
	}
	if options.MaxResponse == 0 {
		options.MaxResponse = 1 << 20
	}
	if options.Logger == nil {
		options.Logger = slog.Default()
	}
	return &Middleware{
		engine:  engine,
		options: options,
		dropped: dropped,
		headers: fingerprintedHeaders(options.FingerprintHeaders),
		bodies:  budget{limit: options.MaxBuffered},
	}
}

// check panics at the first option with which no request could be served. The message has its name, value and
// bound.
func (o *Options) check() {
	for _, limit := range []struct {
		name  string
		value int64
	}{
		{"MaxRequestBody", o.MaxRequestBody},
		{"MaxBuffered", o.MaxBuffered},
		{"MaxResponse", int64(o.MaxResponse)},
	} {
		if limit.value < 0 {
			panic(fmt.Sprintf("oncekeyhttp: %s is %d bytes, and must not be negative", limit.name, limit.value))
		}
	}
	if o.BodyIdle < 0 || o.Wait < 0 {
		panic(fmt.Sprintf("oncekeyhttp: BodyIdle is %v and Wait %v, and neither may be negative", o.BodyIdle, o.Wait))
	}
	if o.TTL != 0 && o.TTL < time.Millisecond {
		panic(fmt.Sprintf("oncekeyhttp: TTL is %v, and must be at least a millisecond", o.TTL))
	}
}

// Stats returns a snapshot. Counts start at zero with the middleware.
func (m *Middleware) Stats() Stats {
	c := &m.counters
	return Stats{
		Running:          c.running.Load(),
		KeyRefused:       c.keyRefused.Load(),
		BodyRefused:      c.bodyRefused.Load(),
		BodyOverloaded:   c.bodyOverloaded.Load(),
		BufferedBytes:    m.bodies.held.Load(),
		StoreUnavailable: c.storeUnavailable.Load(),
		CompleteFailed:   c.completeFailed.Load(),
		NotStored:        c.notStored.Load(),
		NotExecuted:      c.notExecuted.Load(),
		Abandoned:        c.abandoned.Load(),
		Undecodable:      c.undecodable.Load(),
		UnscopedCookies:  c.unscopedCookies.Load(),
	}
}

// Wrap returns a handler that runs next once for each idempotency key. It panics when next is nil.
func (m *Middleware) Wrap(next http.Handler) http.Handler {
	if next == nil {
		// Fail now, and not at the first claim, whose key would be lost.
		panic("oncekeyhttp: there is no handler to wrap")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, refused := m.key(r)
		switch {
		case refused != nil:
			m.counters.keyRefused.Add(1)
			m.refuse(w, r, refused)
		case key == nil:
			next.ServeHTTP(w, r)
		default:
			m.exchange(w, r, next, *key)
		}
	})
}

// key returns the key of a request that takes part; nil lets the request pass.
func (m *Middleware) key(r *http.Request) (*oncekey.Key, *rejection) {
	contract := &m.options.Contract
	if !contract.takesPart(r.Method) {
		return nil, nil
	}
	var values []string
	for _, header := range contract.Headers {
		values = append(values, r.Header[header]...)
	}
	name, refused := parseKey(values, contract.KeyForm)
	if refused != nil {
		return nil, refused
	}
	outer := FromContext(r.Context())
	if name == "" {
		if m.options.Required && outer == nil {
			return nil, missingKey(contract.Headers)
		}
		return nil, nil
	}
	key := oncekey.Key{Key: name}
	if m.options.Scope != nil {
		key.Scope = m.options.Scope(r)
	}
	// A scope that is too long is refused before the body is read, as a malformed key is.
	if len(key.Scope) > 255 {
		return nil, invalidScope(len(key.Scope))
	}
	// The same key is held by a middleware outside of this one, so a begin here would find it locked. A
	// different key belongs to a request that a handler makes.
	if outer.isUnder(key) {
		return nil, nil
	}
	if m.options.Scope == nil && r.Header["Cookie"] != nil && m.counters.unscopedCookies.Add(1) == 1 {
		m.options.Logger.WarnContext(r.Context(), "oncekey: a request with a key and a cookie came to a middleware without a scope; users that share a key and a body share a response")
	}
	return &key, nil
}

// exchange answers a request that has a key.
func (m *Middleware) exchange(w http.ResponseWriter, r *http.Request, next http.Handler, key oncekey.Key) {
	held := body{budget: &m.bodies}
	defer held.free()
	if refused := held.read(w, r, m.options.MaxRequestBody, m.options.BodyIdle); refused != nil {
		if refused.code == overloadedCode {
			m.counters.bodyOverloaded.Add(1)
		} else {
			m.counters.bodyRefused.Add(1)
		}
		if refused.unread && r.ProtoMajor == 1 {
			// The server would wait for the rest of the body before it answers.
			w.Header().Set("Connection", "close")
		}
		m.refuse(w, r, refused)
		return
	}
	found, refused := m.rule(r.Context(), key, fingerprint(r, m.headers, held.bytes))
	switch found := found.(type) {
	case *oncekey.Claim:
		m.execute(w, r, next, found, held.bytes)
	case *oncekey.Recorded:
		m.replay(w, r, found)
	default:
		m.refuse(w, r, refused)
	}
}

func (m *Middleware) refuse(w http.ResponseWriter, r *http.Request, refused *rejection) {
	refused.write(w, r, &m.options.Contract)
}

// takeOverTries is how often a request tries to take over an orphan that other requests resolve first. After
// a failed try another caller has made progress, so the next begin usually has another outcome.
const takeOverTries = 3

// rule decides about a request: execute a claim, replay a response, or refuse.
func (m *Middleware) rule(ctx context.Context, key oncekey.Key, fingerprint oncekey.Fingerprint) (oncekey.Begin, *rejection) {
	for range takeOverTries {
		found, err := m.engine.BeginWaiting(ctx, key, fingerprint, m.options.Wait)
		if err != nil {
			return nil, m.beginFailed(ctx, err)
		}
		switch found := found.(type) {
		case *oncekey.InFlight:
			return nil, locked(found.RetryAfter)
		case *oncekey.Mismatch:
			return nil, mismatch(found.Parts)
		case *oncekey.Orphan:
			if m.options.Recovery == Hold {
				found.Close()
				return nil, outcomeUnknown()
			}
			claim, err := found.TakeOver(ctx)
			if err == nil {
				return claim, nil
			}
			found.Close()
			// Another caller resolved it first: begin again.
			if !errors.Is(err, oncekey.ErrFenced) && !errors.Is(err, oncekey.ErrAlreadyCompleted) {
				return nil, m.beginFailed(ctx, err)
			}
		default:
			return found, nil
		}
	}
	return nil, outcomeUnknown()
}

func (m *Middleware) beginFailed(ctx context.Context, err error) *rejection {
	var failed *oncekey.Error
	if errors.As(err, &failed) && failed.Kind == oncekey.ErrInvalidInput {
		m.counters.keyRefused.Add(1)
		return invalidInput(failed.Message)
	}
	m.counters.storeUnavailable.Add(1)
	m.options.Logger.ErrorContext(ctx, "oncekey: begin failed", "error", err)
	return storeUnavailable()
}

func (m *Middleware) replay(w http.ResponseWriter, r *http.Request, recorded *oncekey.Recorded) {
	if recorded.Response == nil {
		m.refuse(w, r, responseNotStored())
		return
	}
	response, err := DecodeResponse(recorded.Response)
	if err != nil {
		// The engine guarantees that it returns the bytes that were stored, so another program wrote them. The
		// operation is completed and must not run again.
		m.counters.undecodable.Add(1)
		m.options.Logger.Error("oncekey: a stored response cannot be decoded", "error", err)
		m.refuse(w, r, responseNotStored())
		return
	}
	if marker := m.options.Contract.ReplayMarker; marker.Name != "" {
		name := strings.ToLower(marker.Name)
		response.Header = slices.DeleteFunc(response.Header, func(field Field) bool { return field.Name == name })
		response.Header = append(response.Header, Field{name, marker.Value})
	}
	response.send(w)
}
