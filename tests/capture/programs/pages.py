"""A page and a call of the API, as programs in Python ask for them."""

import asyncio
import json
import sys
import urllib.request

import aiohttp
import httpx
import requests
import urllib3

CLIENT, PAGE, API = sys.argv[1:]
CALL = {"id": 1, "method": "get_repos", "args": {}, "api_key": "0123456789abcdef"}


async def with_aiohttp() -> None:
    async with aiohttp.ClientSession() as session:
        await session.get(PAGE)
        await session.post(API, json=CALL)


def with_urllib() -> None:
    urllib.request.urlopen(PAGE).read()
    urllib.request.urlopen(urllib.request.Request(API, json.dumps(CALL).encode())).read()


match CLIENT:
    case "aiohttp":
        asyncio.run(with_aiohttp())
    case "urllib":
        with_urllib()
    case "requests":
        requests.get(PAGE)
        requests.post(API, json=CALL)
    case "httpx":
        httpx.get(PAGE)
        httpx.post(API, json=CALL)
    case "urllib3":
        urllib3.request("GET", PAGE)
        urllib3.request("POST", API, json=CALL)
