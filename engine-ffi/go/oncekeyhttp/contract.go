package oncekeyhttp

import (
	"fmt"
	"net/http"
	"slices"
)

// Contract is the contract as clients see it: how a client sends a key, and how it is refused. One value
// serves a whole API, while the other [Options] are about a route. Zero fields mean the defaults; [IETF] and
// [Stripe] are presets, whose fields can be changed. docs/http.md compares them, with sources.
type Contract struct {
	// Headers that may carry the key. A request that sends more than one key in them is refused. Refusals name
	// the first header. Default X-Idempotency-Key and Idempotency-Key.
	Headers []string
	// KeyForm is how a key is written. Default Verbatim.
	KeyForm KeyForm
	// Methods that take part, without CONNECT and the safe ones. nil: every method but those.
	Methods []string
	// Statuses of refusals.
	Statuses Statuses
	// Refusals is the form of the body of a refusal. Default ProblemDocuments.
	Refusals Refusals
	// ReplayMarker is a header that replayed responses carry and first responses do not. It replaces a stored
	// header of the same name. No name: a replay has exactly the headers of the first response.
	ReplayMarker Field
	// Documentation is a URL that explains keys to the developers of clients: the type of problem documents, the
	// doc_url of Stripe's errors. Default: the type is about:blank, and there is no doc_url.
	Documentation string
}

// KeyForm is how a key is written in its header.
type KeyForm int

const (
	// Verbatim: the value of the header is the key, quotes and all.
	Verbatim KeyForm = iota
	// StringOrVerbatim: a value that begins with a double quote is a String of RFC 8941, section 3.3.3, and the
	// key is the content of that string: "k" and k are the same key. Every other value is the key itself.
	StringOrVerbatim
)

// Refusals is the form of the body of a refusal.
type Refusals int

const (
	// ProblemDocuments: application/problem+json (RFC 9457) with the code in the member code.
	ProblemDocuments Refusals = iota
	// StripeErrors: {"error": {"type": …, "code": …, "message": …}}, with the header Stripe-Should-Retry. The
	// code of a locked key is Stripe's idempotency_key_in_use; all other codes are those of the problem
	// documents.
	StripeErrors
)

// Statuses of refusals. Zero fields mean the defaults. The code of a refusal does not change with its status.
type Statuses struct {
	KeyInvalid        int // idempotency_key_invalid: 400
	KeyMissing        int // idempotency_key_missing: 400
	BodyTooLarge      int // idempotency_body_too_large: 413
	BodyUnreadable    int // idempotency_body_unreadable: 400
	BodyTimeout       int // idempotency_body_timeout: 408
	Locked            int // idempotency_key_locked: 409
	Mismatch          int // idempotency_key_mismatch: 409; 422 in IETF, 400 in Stripe
	OutcomeUnknown    int // idempotency_outcome_unknown: 409
	ResponseNotStored int // idempotency_response_not_stored: 409
	StoreUnavailable  int // idempotency_store_unavailable: 503
	Overloaded        int // idempotency_overloaded: 503
}

// IETF is the contract of the draft draft-ietf-httpapi-idempotency-key-header: Idempotency-Key with quoted
// strings (bare keys are accepted too), 400 when a required key is missing, 409 while the first request runs,
// 422 for another request. The draft asks refusals to link to documentation: set Documentation.
func IETF() Contract {
	return Contract{
		Headers:  []string{"Idempotency-Key", "X-Idempotency-Key"},
		KeyForm:  StringOrVerbatim,
		Statuses: Statuses{Mismatch: http.StatusUnprocessableEntity},
	}
}

// Stripe is the contract of Stripe's API, version 1: Idempotency-Key on POST alone, 409 while the first
// request runs, 400 for another request, Stripe's error objects, and Idempotent-Replayed: true on replays.
func Stripe() Contract {
	return Contract{
		Headers:      []string{"Idempotency-Key", "X-Idempotency-Key"},
		Methods:      []string{http.MethodPost},
		Statuses:     Statuses{Mismatch: http.StatusBadRequest},
		Refusals:     StripeErrors,
		ReplayMarker: Field{"Idempotent-Replayed", "true"},
	}
}

// noDocumentation is the type of a problem document without documentation. Source: RFC 9457, section 4.2.1.
const noDocumentation = "about:blank"

// filled returns the contract with defaults in place of zero fields.
func (c Contract) filled() Contract {
	if c.Headers == nil {
		// A client that uses the other name must not silently run twice.
		c.Headers = []string{"X-Idempotency-Key", "Idempotency-Key"}
	}
	canonical := make([]string, len(c.Headers))
	for i, name := range c.Headers {
		canonical[i] = http.CanonicalHeaderKey(name)
	}
	c.Headers = canonical
	if c.Documentation == "" {
		c.Documentation = noDocumentation
	}
	for _, status := range []struct {
		status   *int
		fallback int
	}{
		{&c.Statuses.KeyInvalid, http.StatusBadRequest},
		{&c.Statuses.KeyMissing, http.StatusBadRequest},
		{&c.Statuses.BodyTooLarge, http.StatusRequestEntityTooLarge},
		{&c.Statuses.BodyUnreadable, http.StatusBadRequest},
		{&c.Statuses.BodyTimeout, http.StatusRequestTimeout},
		{&c.Statuses.Locked, http.StatusConflict},
		{&c.Statuses.Mismatch, http.StatusConflict},
		{&c.Statuses.OutcomeUnknown, http.StatusConflict},
		{&c.Statuses.ResponseNotStored, http.StatusConflict},
		{&c.Statuses.StoreUnavailable, http.StatusServiceUnavailable},
		{&c.Statuses.Overloaded, http.StatusServiceUnavailable},
	} {
		if *status.status == 0 {
			*status.status = status.fallback
		}
		if *status.status < 200 || *status.status > 999 {
			panic(fmt.Sprintf("oncekeyhttp: a refusal cannot have the status %d", *status.status))
		}
	}
	return c
}

// takesPart says whether a request with this method takes part.
func (c *Contract) takesPart(method string) bool {
	// The answer to CONNECT is a tunnel, which no store can replay.
	return !isSafe(method) && method != http.MethodConnect && (c.Methods == nil || slices.Contains(c.Methods, method))
}

// isSafe says whether a method is safe. Source: RFC 9110, section 9.2.1.
func isSafe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions || method == http.MethodTrace
}
