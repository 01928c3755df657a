// A real OpenID Connect provider (oidc-provider, from npm) on loopback. Everybody may sign in, with any password. Settings come as JSON in the one argument.
import { generateKeyPairSync } from "node:crypto";
import Provider from "oidc-provider";

const { port, clientId, clientSecret, callbacks, afterLogout, backChannel, sessionRequired } = JSON.parse(process.argv[2]);
const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    {
      client_id: clientId,
      client_secret: clientSecret,
      redirect_uris: callbacks,
      post_logout_redirect_uris: afterLogout,
      backchannel_logout_uri: backChannel,
      backchannel_logout_session_required: sessionRequired,
    },
  ],
  jwks: { keys: [{ ...privateKey.export({ format: "jwk" }), use: "sig", kid: "one" }] },
  cookies: { keys: ["of as long as one test lives"] },
  features: { backchannelLogout: { enabled: true } },
  conformIdTokenClaims: false,
  claims: { openid: ["sub"], profile: ["preferred_username", "groups"] },
  findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id, preferred_username: id, groups: ["staff"] }) }),
  // Its own protection refuses loopback, where the hub is here.
  fetch: (url, options) => {
    delete options.dispatcher;
    return fetch(url, options);
  },
});

provider.on("backchannel.success", (_ctx, _client, account, sid) => console.log(`told of ${account} ${sid}`));
provider.on("backchannel.error", (_ctx, error, _client, account) => console.log(`not told of ${account}: ${error} ${error.cause ?? ""}`));
provider.on("server_error", (_ctx, error) => console.log(`error: ${error.stack}`));
provider.listen(port, "127.0.0.1", () => console.log("listening"));
