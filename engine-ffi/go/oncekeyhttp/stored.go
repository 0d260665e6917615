package oncekeyhttp

import "net/http"

// Stored says which responses are stored. A response that is not stored frees the key: the next request with
// it runs the handler, even if the first run took effect. So every policy but the first may run an operation
// more than once, and its name says so. A handler can free the key with [Attempt.NotExecuted] under every
// policy.
type Stored struct {
	frees func(status int, header http.Header) bool
}

var (
	// EveryResponse but 401, 425 and 429, which a server sends before it does anything. 5xx and 408 are stored:
	// the handler may have acted before it failed. The default.
	EveryResponse = Stored{func(status int, _ http.Header) bool { return comesBeforeExecution(status) }}
	// AtLeastOnceAfterServerErrors: 408 and 5xx free the key too. For handlers that undo their effects when they
	// fail.
	AtLeastOnceAfterServerErrors = Stored{func(status int, _ http.Header) bool {
		return comesBeforeExecution(status) || status == http.StatusRequestTimeout || status >= 500
	}}
	// AtLeastOnceUnlessSuccessful: only 2xx and 3xx are stored.
	AtLeastOnceUnlessSuccessful = Stored{func(status int, _ http.Header) bool { return status >= 400 }}
)

// AtLeastOnceUnless stores a response when the function returns true for it.
func AtLeastOnceUnless(stored func(status int, header http.Header) bool) Stored {
	return Stored{func(status int, header http.Header) bool { return !stored(status, header) }}
}

func comesBeforeExecution(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusTooEarly || status == http.StatusTooManyRequests
}

// freesKey says whether a response frees the key. A switch of protocols never does.
func (s Stored) freesKey(status int, header http.Header) bool {
	return status != http.StatusSwitchingProtocols && s.frees(status, header)
}
