package oncekeyhttp

import "net/http"

// Stored says which responses are stored. One that is not frees the key: the next request with it runs the
// handler, whatever the first run did. So all but the first may run an operation more than once, and say so in
// their names. A handler that knows better calls [Attempt.NotExecuted], whatever stands here.
type Stored struct {
	frees func(status int, header http.Header) bool
}

var (
	// EveryResponse but 401, 425 and 429, which are given before anything is done. 5xx and 408 are stored: the
	// handler may have acted before it failed. The default.
	EveryResponse = Stored{func(status int, _ http.Header) bool { return comesBeforeExecution(status) }}
	// AtLeastOnceAfterServerErrors: 408 and 5xx free the key too. For handlers that undo what they did when they
	// fail.
	AtLeastOnceAfterServerErrors = Stored{func(status int, _ http.Header) bool {
		return comesBeforeExecution(status) || status == http.StatusRequestTimeout || status >= 500
	}}
	// AtLeastOnceUnlessSuccessful: only 2xx and 3xx are stored.
	AtLeastOnceUnlessSuccessful = Stored{func(status int, _ http.Header) bool { return status >= 400 }}
)

// AtLeastOnceUnless stores those responses of which the function says so.
func AtLeastOnceUnless(stored func(status int, header http.Header) bool) Stored {
	return Stored{func(status int, header http.Header) bool { return !stored(status, header) }}
}

func comesBeforeExecution(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusTooEarly || status == http.StatusTooManyRequests
}

// freesKey: a response of a connection that becomes another one is not for this to judge.
func (s Stored) freesKey(status int, header http.Header) bool {
	return status != http.StatusSwitchingProtocols && s.frees(status, header)
}
