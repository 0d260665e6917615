, mark AS (                                      -- only with a change: a group of answers alone writes nothing
  UPDATE oncekey.mark SET number = greatest(number, $6)  -- one that comes late was not the last
  WHERE instance = $2 AND lane = $7::smallint AND EXISTS (SELECT 1 FROM done)
)
