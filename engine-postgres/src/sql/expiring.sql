-- What `response` holds by the end of its bucket of time, the first to expire first.
SELECT (r.expires_at / t.bucket_ms + 1) * t.bucket_ms, count(*), coalesce(sum(octet_length(r.body)), 0)::bigint
FROM oncekey.store t, oncekey.response r
WHERE t.one AND r.expires_at > greatest((extract(epoch FROM clock_timestamp()) * 1000)::bigint, t.high_time)
GROUP BY 1 ORDER BY 1
