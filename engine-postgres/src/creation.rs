//! The tables of a store are made by the first process that may make them.

use oncekey::ErrorKind;
use oncekey::fleet::store::Failure;

use crate::common::Common;
use crate::handshake;
use crate::rows::{Params, signed};
use crate::statements::LEAVES;

/// Makes the tables, if the options say so and there are none.
pub(crate) async fn create(common: &Common) -> Result<(), Failure> {
    if !common.settings.create {
        return Ok(());
    }
    let mut connection = common.connection().await?;
    handshake::settings(&mut connection, &common.statements, false).await?;
    match connection.run(&common.statements.store, &vec![]).await {
        Ok(rows) if !rows.is_empty() => return Ok(()),
        Ok(_) => {}
        Err((failure, _)) if failure.error().kind() == ErrorKind::StoreMissing => {
            // Another process may make them at the same time: the later one finds the tables.
            let made =
                connection.batch(&format!("BEGIN; {}; COMMIT", common.statements.creation())).await;
            if let Err((failure, _)) = made {
                let _ended = connection.batch("ROLLBACK").await;
                let there = connection.run(&common.statements.store, &vec![]).await;
                there.map_err(|_| failure)?;
            }
        }
        Err((failure, _)) => return Err(failure),
    }
    let secret: [u8; 64] = random();
    let params: Params<'_> = vec![
        Box::new(i64::from_le_bytes(random())),
        Box::new(secret.to_vec()),
        Box::new(signed(common.settings.bucket_ms)),
        Box::new(LEAVES),
    ];
    connection.run(&common.statements.create, &params).await.map_err(|(failure, _)| failure)?;
    Ok(())
}

/// Random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let filled = rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes);
    // It fails only where the system has no such source, and TLS would not work either.
    filled.expect("the system gives random bytes");
    bytes
}
