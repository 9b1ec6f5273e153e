"""The conversation with an ACME authority (RFC 8555), by the `acme` library. It waits: call it in a thread.

The account's key is `DIR/acme/HASH.key`, 0600, one for each authority; beside it `HASH.json` remembers the account's
address. Errors become one line: what the authority said, without control characters.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import requests
from acme import challenges, errors, messages
from acme.client import ClientNetwork, ClientV2
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.errors import Error as JoseError
from josepy.jwa import ES256
from josepy.jwk import JWK, JWKEC

from letterlock import __version__
from letterlock.base.errors import Refused
from letterlock.base.settings_acme import AcmeChallenge, AcmeSettings
from letterlock.directory import certificate_files as files
from letterlock.directory.acme_answers import External, Proof

REQUEST_S: Final = 30
ISSUE_S: Final = 180.0  # for the authority to look and to issue
BAD_NONCES: Final = 8  # in a row
MAX_ANSWER: Final = 512 * 1024


class Order(NamedTuple):
    """An order whose names are to be proved."""

    resource: messages.OrderResource
    todo: list[tuple[messages.ChallengeBody, challenges.ChallengeResponse]]
    proofs: list[Proof]


def _line(text: object) -> str:
    return "".join(c if c.isprintable() else " " for c in str(text)).strip()[:400]


def _problems(error: errors.ValidationError) -> str:
    """Which names failed, and why."""
    found = []
    for authorization in error.failed_authzrs:
        for challenge in authorization.body.challenges:
            if challenge.error is not None:
                found.append(f"{authorization.body.identifier.value}: {_line(challenge.error.detail)}")
    return "; ".join(found) or "the authority did not say why"


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Whatever goes wrong on the way is one line for a person."""
    try:
        yield
    except errors.ValidationError as error:
        raise Refused(f"the authority could not verify {_problems(error)}") from None
    except messages.Error as error:
        raise Refused(f"the authority refuses: {_line(error.detail or error.title or error.code)}") from None
    except errors.TimeoutError:
        raise Refused(f"the authority did not finish within {ISSUE_S:.0f} seconds") from None
    except requests.exceptions.SSLError as error:
        raise Refused(f"{url}: the authority's own certificate cannot be trusted ({_line(_reason(error))})") from None
    except requests.exceptions.RequestException as error:
        raise Refused(f"{url} cannot be reached: {_line(_reason(error))}") from None
    except OSError as error:  # a CaFile that is not there
        raise Refused(f"{url} cannot be reached: {_line(error)}") from None
    except (errors.Error, JoseError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"{url} does not answer as an ACME authority does ({type(error).__name__})") from None


def _reason(error: BaseException) -> object:
    """The innermost reason: the outer ones repeat URLs and addresses of objects."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    inner = getattr(error, "reason", None)
    return _reason(inner) if isinstance(inner, BaseException) else inner or str(error).rpartition(": ")[2]


class _Network(ClientNetwork):
    """Tries again with a new nonce for as long as an authority finds fault with it (RFC 8555 §6.5)."""

    def post(self, *args: Any, **more: Any) -> requests.Response:
        """The library by itself tries twice."""
        for _ in range(BAD_NONCES):
            try:
                return super().post(*args, **more)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return super().post(*args, **more)


class AcmeClient:
    """One authority, as one account."""

    def __init__(self, settings: AcmeSettings, folder: Path, external: External | None = None) -> None:
        self._settings, self._folder, self._external = settings, folder, external
        name = hashlib.sha256(settings.DirectoryUrl.encode()).hexdigest()[:16]
        self._key_file, self._account_file = folder / f"{name}.key", folder / f"{name}.json"
        self._client: ClientV2
        self._key: JWK

    def order(self, csr_pem: bytes, names: list[str]) -> Order:
        """Place an order; what has to be shown before `finish`."""
        with _told(self._settings.DirectoryUrl):
            resource = self._with_account(lambda: self._client.new_order(csr_pem))
            todo, proofs = [], []
            for authorization in resource.authorizations:
                if authorization.body.status == messages.STATUS_VALID:
                    continue  # proved a short while ago
                domain = str(authorization.body.identifier.value).lower()
                if domain not in {n.removeprefix("*.") for n in names}:
                    raise Refused(f"the authority asks to prove '{_line(domain)}', which was not ordered")
                challenge = self._challenge(authorization)
                response, value = challenge.response_and_validation(self._key)
                todo.append((challenge, response))
                proofs.append(self._proof(challenge.chall, domain, value))
            return Order(resource, todo, proofs)

    def _challenge(self, authorization: messages.AuthorizationResource) -> messages.ChallengeBody:
        http = self._settings.ChallengeType is AcmeChallenge.Http01
        kind = challenges.HTTP01 if http else challenges.DNS01
        for challenge in authorization.body.challenges:
            if isinstance(challenge.chall, kind):
                return challenge
        wanted = "http-01" if http else "dns-01"
        raise Refused(f"the authority offers no {wanted} challenge for {authorization.body.identifier.value}")

    def _proof(self, challenge: Any, domain: str, value: str) -> Proof:
        if isinstance(challenge, challenges.HTTP01):
            return Proof(domain, challenge.encode("token"), value)
        return Proof(domain, challenge.validation_domain_name(domain), value)

    def finish(self, order: Order) -> list[x509.Certificate]:
        """Say that all is to be seen, wait, and take the certificate with its chain."""
        with _told(self._settings.DirectoryUrl):
            for challenge, response in order.todo:
                self._client.answer_challenge(challenge, response)
            # the library compares with the local time without a zone
            end = datetime.datetime.now() + datetime.timedelta(seconds=ISSUE_S)
            resource = self._client.poll_authorizations(order.resource, end)
            text = self._client.finalize_order(resource, end).fullchain_pem
            if len(text) > MAX_ANSWER:
                raise Refused("the authority's answer is too long for a certificate")
            return x509.load_pem_x509_certificates(text.encode())

    def revoke(self, certificate: x509.Certificate, reason: int) -> None:
        """Have it revoked (RFC 8555 §7.6), signed by the account that ordered it."""
        with _told(self._settings.DirectoryUrl):
            self._with_account(lambda: self._client.revoke(certificate, reason))

    # --- the account

    def _with_account(self, work: Callable[[], Any]) -> Any:
        """Run with the account; registered anew where the authority does not know it any more."""
        self._connect()
        try:
            return work()
        except messages.Error as error:
            if error.code != "accountDoesNotExist":
                raise
        self._account_file.unlink(missing_ok=True)
        self._connect()
        return work()

    def _connect(self) -> None:
        self._key = JWKEC(key=self._account_key())
        trusted = self._settings.CaFile or ssl.get_default_verify_paths().cafile or True
        agent = f"letterlock/{__version__}"
        # a path is taken, too: it goes to the HTTP library as it is
        verify: Any = trusted
        network = _Network(self._key, alg=ES256, verify_ssl=verify, user_agent=agent, timeout=REQUEST_S)
        directory = ClientV2.get_directory(self._settings.DirectoryUrl, network)
        self._client = ClientV2(directory, network)
        if self._account_file.is_file():
            uri = str(json.loads(self._account_file.read_text())["Uri"])
            network.account = messages.RegistrationResource(uri=uri, body=messages.Registration())
            return
        self._register(directory)

    def _register(self, directory: messages.Directory) -> None:
        terms = getattr(directory.meta, "terms_of_service", None) if hasattr(directory, "meta") else None
        if not self._settings.TermsOfServiceAgreed:
            raise Refused(
                f"the authority's terms of service are not agreed to{f' ({_line(terms)})' if terms else ''}; "
                "read them, then: Set-AcmeSettings -TermsOfServiceAgreed $true"
            )
        more: dict[str, Any] = {}
        if self._client.external_account_required() and self._external is None:
            raise Refused(
                "the authority wants an account of its own first: give -ExternalAccountKeyId and "
                "-ExternalAccountHmacKey"
            )
        if self._external is not None:
            more["external_account_binding"] = messages.ExternalAccountBinding.from_data(
                self._key.public_key(), self._external.key_id, self._external.hmac_key, directory
            )
        if self._settings.Contact:
            more["contact"] = tuple(f"mailto:{c}" for c in self._settings.Contact)
        wanted = messages.NewRegistration(terms_of_service_agreed=True, **more)
        try:
            uri = self._client.new_account(wanted).uri
        except errors.ConflictError as known:
            uri = known.location
            self._client.net.account = messages.RegistrationResource(uri=uri, body=messages.Registration())
        record = {"Directory": self._settings.DirectoryUrl, "Uri": uri, "TermsOfService": terms}
        files.write(self._account_file, json.dumps(record).encode(), 0o600)

    def _account_key(self) -> ec.EllipticCurvePrivateKey:
        if self._key_file.is_file():
            try:
                key = serialization.load_pem_private_key(self._key_file.read_bytes(), None)
            except (OSError, ValueError, TypeError):
                raise Refused(f"the account key {self._key_file} cannot be read") from None
            if isinstance(key, ec.EllipticCurvePrivateKey):
                return key
            raise Refused(f"the account key {self._key_file} is of another kind than expected")
        made = ec.generate_private_key(ec.SECP256R1())
        self._folder.mkdir(mode=0o700, exist_ok=True)
        files.write(self._key_file, files.private_pem(made), 0o600)
        return made
