-- Records every change of a row. Beside the store's tables; slows them down, and is for campaigns alone.
CREATE TABLE oncekey.audit (
  seq bigserial PRIMARY KEY, hash uuid, op text, version bigint, token bigint, state smallint, attempt integer,
  oldstate smallint, oldtoken bigint, oldversion bigint, oldexpires bigint, oldowner_ended boolean, at bigint
);
CREATE FUNCTION oncekey.audit() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE now bigint := (extract(epoch FROM clock_timestamp()) * 1000)::bigint;
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO oncekey.audit (hash, op, version, token, state, attempt, at)
    VALUES (NEW.hash, 'I', NEW.version, NEW.token, NEW.state, NEW.attempt, now);
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO oncekey.audit (hash, op, version, token, state, attempt, oldstate, oldtoken, oldversion, oldexpires, oldowner_ended, at)
    VALUES (NEW.hash, 'U', NEW.version, NEW.token, NEW.state, NEW.attempt, OLD.state, OLD.token, OLD.version, OLD.expires_at,
            NOT EXISTS (SELECT 1 FROM oncekey.instance i WHERE i.id = OLD.owner AND i.ended_at IS NULL), now);
  ELSE
    INSERT INTO oncekey.audit (hash, op, oldstate, oldtoken, oldversion, oldexpires, at)
    VALUES (OLD.hash, 'D', OLD.state, OLD.token, OLD.version, OLD.expires_at, now);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON oncekey.key FOR EACH ROW EXECUTE FUNCTION oncekey.audit();

-- The history holds none of these: each count is 0.
CREATE VIEW oncekey.violation AS
SELECT 'a token was granted twice' AS what,
  (SELECT count(*) FROM (SELECT token FROM oncekey.audit WHERE version = token GROUP BY token HAVING count(*) > 1) t) AS number
UNION ALL SELECT 'a later claim has the smaller token',
  (SELECT count(*) FROM oncekey.audit WHERE op = 'U' AND (token < oldtoken OR version <= oldversion))
UNION ALL SELECT 'a live claim was taken over',
  (SELECT count(*) FROM oncekey.audit WHERE op = 'U' AND token <> oldtoken AND oldstate = 1 AND NOT oldowner_ended)
UNION ALL SELECT 'a live record was claimed anew',
  (SELECT count(*) FROM oncekey.audit WHERE op = 'U' AND token <> oldtoken AND attempt = 1 AND oldstate IN (2, 3, 4) AND oldexpires > at)
UNION ALL SELECT 'a completed record changed',
  (SELECT count(*) FROM oncekey.audit WHERE op = 'U' AND oldstate IN (3, 4) AND oldexpires > at)
UNION ALL SELECT 'a row was deleted within a minute of its expiry',
  (SELECT count(*) FROM oncekey.audit WHERE op = 'D' AND oldexpires + 59000 > at);
